#include "drip/link.h"

#include <stddef.h>
#include <string.h>

#include "drip/bytes.h"

enum {
    HEADER_BYTES = DRIP_FRAME_HEADER_BYTES,
    CRC_BYTES = 4,
    READS_PER_POLL = 64,
    COBS_LONGEST_RUN = 254,
};

enum rx_state {
    RX_START, /* nothing of a frame yet */
    RX_ZERO,  /* the run that ends here stands for a zero byte, unless the frame ends too */
    RX_FULL,  /* the run was of the longest kind, which stands for no zero byte */
    RX_SKIP,  /* broken: wait for the next delimiter */
};

enum tx_state { TX_IDLE, TX_OPEN, TX_CODE, TX_RUN, TX_RUN_FULL, TX_CLOSE };

/* Log blocks are read straight into a body, behind a fixed part that is a multiple of 4. */
_Static_assert(offsetof(drip_link_t, tx) % 4 == 0, "the card may write to words only");

void drip_link_init(drip_link_t *link, const drip_port_t *port)
{
    memset(link, 0, sizeof(*link));
    link->port = port;
}

static void rx_reset(drip_link_t *link)
{
    link->rx_size = 0;
    link->rx_code = 0;
    link->rx_state = RX_START;
}

static void rx_break(drip_link_t *link)
{
    link->errors++;
    link->rx_state = RX_SKIP;
}

static int rx_put(drip_link_t *link, uint8_t byte)
{
    if (link->rx_size == DRIP_LINK_FRAME_BYTES) {
        rx_break(link);
        return 0;
    }
    link->rx[link->rx_size++] = byte;
    return 1;
}

/* Judges what lies between two delimiters. Nothing at all is no error: every frame opens and closes
 * with a delimiter. */
static int rx_finish(drip_link_t *link, drip_link_frame_t *frame)
{
    uint32_t crc;
    uint32_t size = link->rx_size;

    if (link->rx_state == RX_START || link->rx_state == RX_SKIP) {
        return 0;
    }
    if (link->rx_code != 0 || size < HEADER_BYTES + CRC_BYTES) {
        link->errors++;
        return 0;
    }
    size -= CRC_BYTES;
    memcpy(&crc, link->rx + size, CRC_BYTES);
    if (crc != drip_crc32(0, link->rx, size)) {
        link->errors++;
        return 0;
    }
    memcpy(&frame->header, link->rx, sizeof(frame->header));
    frame->body = link->rx + HEADER_BYTES;
    frame->body_size = size - HEADER_BYTES;
    return 1;
}

static int rx_byte(drip_link_t *link, uint8_t byte, drip_link_frame_t *frame)
{
    if (byte == 0) {
        int found = rx_finish(link, frame);

        rx_reset(link);
        return found;
    }
    if (link->rx_state == RX_SKIP) {
        return 0;
    }
    if (link->rx_code != 0) {
        if (rx_put(link, byte)) {
            link->rx_code--;
        }
        return 0;
    }
    if (link->rx_state == RX_ZERO && !rx_put(link, 0)) {
        return 0;
    }
    link->rx_code = (uint8_t)(byte - 1);
    link->rx_state = byte == COBS_LONGEST_RUN + 1 ? RX_FULL : RX_ZERO;
    return 0;
}

int drip_link_poll(drip_link_t *link, drip_link_frame_t *frame)
{
    int reads;

    drip_link_pump(link);
    for (reads = 0; reads < READS_PER_POLL; reads++) {
        int got;

        while (link->rx_raw_at < link->rx_raw_size) {
            if (rx_byte(link, link->rx_raw[link->rx_raw_at++], frame)) {
                return 1;
            }
        }
        got = link->port->link_read(link->port->context, link->rx_raw, sizeof(link->rx_raw));
        if (got <= 0) {
            link->rx_raw_at = 0;
            link->rx_raw_size = 0;
            return 0;
        }
        link->rx_any = 1;
        link->rx_raw_at = 0;
        link->rx_raw_size =
            (uint8_t)((uint32_t)got < sizeof(link->rx_raw) ? (uint32_t)got : sizeof(link->rx_raw));
    }
    return 0;
}

int drip_link_more(const drip_link_t *link)
{
    return link->rx_raw_size != 0;
}

/* Returns how many of the bytes the port took. */
static uint32_t tx_write(drip_link_t *link, const uint8_t *data, uint32_t size)
{
    int taken = link->port->link_write(link->port->context, data, size);

    if (taken <= 0) {
        return 0;
    }
    return (uint32_t)taken < size ? (uint32_t)taken : size;
}

static int tx_byte(drip_link_t *link, uint8_t byte)
{
    return tx_write(link, &byte, 1) == 1;
}

/* Sends the length code of the next run: the bytes up to a zero or the end. */
static int tx_code(drip_link_t *link)
{
    uint32_t run = 0;
    uint32_t left = link->tx_size - link->tx_at;

    while (run < left && run < COBS_LONGEST_RUN && link->tx[link->tx_at + run] != 0) {
        run++;
    }
    if (!tx_byte(link, (uint8_t)(run + 1))) {
        return 0;
    }
    link->tx_run = (uint8_t)run;
    link->tx_state = run == COBS_LONGEST_RUN ? TX_RUN_FULL : TX_RUN;
    return 1;
}

static int tx_run(drip_link_t *link)
{
    if (link->tx_run != 0) {
        uint32_t taken = tx_write(link, link->tx + link->tx_at, link->tx_run);

        link->tx_at += taken;
        link->tx_run = (uint8_t)(link->tx_run - taken);
        return link->tx_run == 0;
    }
    if (link->tx_at == link->tx_size) {
        link->tx_state = TX_CLOSE;
        return 1;
    }
    if (link->tx_state == TX_RUN) {
        link->tx_at++; /* the zero that the code stands for; a code follows even at the end */
    }
    link->tx_state = TX_CODE;
    return 1;
}

/* Sends the next piece. Returns 0 when the port takes no more, or all is sent. */
static int tx_step(drip_link_t *link)
{
    switch (link->tx_state) {
    case TX_OPEN:
        if (!tx_byte(link, 0)) {
            return 0;
        }
        link->tx_state = TX_CODE;
        return 1;
    case TX_CODE:
        return tx_code(link);
    case TX_RUN:
    case TX_RUN_FULL:
        return tx_run(link);
    case TX_CLOSE:
        if (tx_byte(link, 0)) {
            link->tx_state = TX_IDLE;
        }
        return 0;
    default:
        return 0;
    }
}

void drip_link_pump(drip_link_t *link)
{
    while (tx_step(link)) {
    }
}

uint8_t *drip_link_body(drip_link_t *link)
{
    return link->tx_state == TX_IDLE ? link->tx + HEADER_BYTES : NULL;
}

int drip_link_send(drip_link_t *link, uint8_t type, uint16_t id, uint32_t body_size)
{
    drip_frame_header_t header;
    uint32_t crc;

    if (link->tx_state != TX_IDLE) {
        return DRIP_ERR_BUSY;
    }
    if (body_size > DRIP_MAX_BODY_BYTES) {
        return DRIP_ERR_ARGUMENT;
    }
    header.type = type;
    header.flags = 0;
    header.id = id;
    memcpy(link->tx, &header, HEADER_BYTES);
    crc = drip_crc32(0, link->tx, HEADER_BYTES + body_size);
    memcpy(link->tx + HEADER_BYTES + body_size, &crc, CRC_BYTES);
    link->tx_size = HEADER_BYTES + body_size + CRC_BYTES;
    link->tx_at = 0;
    link->tx_state = link->tx_join ? TX_CODE : TX_OPEN;
    link->tx_join = 0;
    drip_link_pump(link);
    return DRIP_ERR_OK;
}

void drip_link_join(drip_link_t *link)
{
    link->tx_join = 1;
}

int drip_link_busy(const drip_link_t *link)
{
    return link->tx_state != TX_IDLE;
}
