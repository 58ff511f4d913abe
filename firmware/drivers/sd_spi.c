/* The bus and the start of transfers. */
#include "sd_spi_internal.h"

#include <string.h>

enum { ANSWER_BYTES = 9, TOKEN_BYTES = 32 };

/* ------------------------------------------------------------------ checksums */

uint8_t drip_sd_crc7(const uint8_t *data, uint32_t size)
{
    uint8_t crc = 0;

    for (uint32_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (uint8_t)((crc & 0x80) != 0 ? (crc << 1) ^ (0x09 << 1) : crc << 1);
        }
    }
    return crc >> 1;
}

/* CRC-16/XMODEM, a byte at a time without a table. */
uint16_t drip_sd_crc16(const uint8_t *data, uint32_t size)
{
    uint32_t crc = 0;

    for (uint32_t i = 0; i < size; i++) {
        crc = (crc >> 8 | crc << 8) & 0xFFFFu;
        crc ^= data[i];
        crc ^= (crc & 0xFFu) >> 4;
        crc = (crc ^ crc << 12) & 0xFFFFu;
        crc ^= (crc & 0xFFu) << 5;
    }
    return (uint16_t)crc;
}

/* ------------------------------------------------------------------ bus */

uint8_t drip_sd_byte(drip_sd_t *sd)
{
    uint8_t byte = 0xFF;

    sd->bus->exchange(sd->bus->context, NULL, &byte, 1);
    return byte;
}

/* The card lets go of its output only with the clock after chip select. */
void drip_sd_release(drip_sd_t *sd)
{
    sd->bus->select(sd->bus->context, 0);
    drip_sd_byte(sd);
}

void drip_sd_enter(drip_sd_t *sd, uint8_t stage)
{
    sd->stage = stage;
    sd->since_ms = sd->bus->millis(sd->bus->context);
}

uint32_t drip_sd_elapsed(const drip_sd_t *sd)
{
    return sd->bus->millis(sd->bus->context) - sd->since_ms;
}

int drip_sd_command(drip_sd_t *sd, uint8_t index, uint32_t argument)
{
    uint8_t frame[6];

    frame[0] = (uint8_t)(0x40u | index);
    frame[1] = (uint8_t)(argument >> 24);
    frame[2] = (uint8_t)(argument >> 16);
    frame[3] = (uint8_t)(argument >> 8);
    frame[4] = (uint8_t)argument;
    frame[5] = (uint8_t)(drip_sd_crc7(frame, 5) << 1 | 1);
    sd->bus->select(sd->bus->context, 1);
    sd->bus->exchange(sd->bus->context, frame, NULL, sizeof(frame));
    if (index == CMD_STOP) {
        drip_sd_byte(sd); /* a byte of the block that was under way */
    }
    for (int i = 0; i < ANSWER_BYTES; i++) {
        uint8_t answer = drip_sd_byte(sd);

        if ((answer & 0x80) == 0) {
            return answer;
        }
    }
    return DRIP_ERR_TIMEOUT;
}

int drip_sd_application(drip_sd_t *sd, uint8_t index, uint32_t argument)
{
    int answer = drip_sd_command(sd, CMD_APPLICATION, 0);

    drip_sd_release(sd);
    if (answer < 0 || (answer & ~R1_IDLE) != 0) {
        return answer;
    }
    return drip_sd_command(sd, index, argument);
}

int drip_sd_status(drip_sd_t *sd)
{
    int answer = drip_sd_command(sd, CMD_STATUS, 0);

    if (answer >= 0) {
        answer = answer << 8 | drip_sd_byte(sd);
    }
    drip_sd_release(sd);
    return answer;
}

/* Busy is a line held low; it is sampled after a few bytes, so that a poll is worth its overhead. */
static int is_ready(drip_sd_t *sd)
{
    uint8_t bytes[8];

    sd->bus->select(sd->bus->context, 1);
    sd->bus->exchange(sd->bus->context, NULL, bytes, sizeof(bytes));
    if (bytes[sizeof(bytes) - 1] != 0xFF) {
        sd->contact_ms = sd->bus->millis(sd->bus->context);
        return 0;
    }
    return 1;
}

int drip_sd_receive(drip_sd_t *sd, uint8_t *data, uint32_t size)
{
    uint8_t token = 0xFF, crc[2];

    for (int i = 0; i < TOKEN_BYTES && token == 0xFF; i++) {
        token = drip_sd_byte(sd);
    }
    if (token == 0xFF) {
        return drip_sd_elapsed(sd) > DRIP_SD_READ_MS ? DRIP_ERR_TIMEOUT : DRIP_ERR_BUSY;
    }
    if (token != TOKEN_BLOCK) {
        return DRIP_ERR_IO;
    }
    sd->bus->exchange(sd->bus->context, NULL, data, size);
    sd->bus->exchange(sd->bus->context, NULL, crc, sizeof(crc));
    if (sd->checks && drip_sd_crc16(data, size) != (uint16_t)(crc[0] << 8 | crc[1])) {
        sd->crc_errors++;
        return DRIP_ERR_CRC;
    }
    return DRIP_ERR_OK;
}

/* ------------------------------------------------------------------ starting */

void drip_sd_init(drip_sd_t *sd, const drip_sd_bus_t *bus)
{
    memset(sd, 0, sizeof(*sd));
    sd->bus = bus;
    sd->hz = DRIP_SD_FULL_HZ;
}

int drip_sd_blocks(drip_sd_t *sd, uint32_t *blocks)
{
    if (sd->transfer != TRANSFER_NONE) {
        return DRIP_ERR_BUSY;
    }
    if (sd->stage == STAGE_READY) {
        /* Asked first whether the line is high: without a card it may read as zeros, a good status. */
        if (is_ready(sd) && drip_sd_status(sd) == 0) {
            *blocks = sd->blocks;
            return DRIP_ERR_OK;
        }
        sd->stage = STAGE_OFF;
    }
    if (sd->stage == STAGE_OFF) {
        sd->hz = DRIP_SD_FULL_HZ;
        sd->known = 0;
    }
    int result = drip_sd_start_step(sd);
    if (result == DRIP_ERR_OK) {
        *blocks = sd->blocks;
    }
    return result;
}

static int start(drip_sd_t *sd, uint8_t transfer, uint32_t block, uint32_t count)
{
    if (sd->transfer != TRANSFER_NONE) {
        return DRIP_ERR_BUSY;
    }
    if (sd->stage != STAGE_READY) {
        return DRIP_ERR_NO_CARD;
    }
    if (count == 0 || block >= sd->blocks || count > sd->blocks - block) {
        return DRIP_ERR_ARGUMENT;
    }
    if (transfer == TRANSFER_WRITE && sd->locked) {
        return DRIP_ERR_PROTECTED;
    }
    sd->transfer = transfer;
    sd->block = block;
    sd->count = count;
    sd->tries = 0;
    sd->lost = 0;
    sd->result = DRIP_ERR_BUSY;
    drip_sd_enter(sd, STAGE_WAIT);
    return DRIP_ERR_OK;
}

int drip_sd_read(drip_sd_t *sd, uint32_t block, uint8_t *data, uint32_t count)
{
    int result = start(sd, TRANSFER_READ, block, count);

    if (result == DRIP_ERR_OK) {
        sd->in = data;
    }
    return result;
}

int drip_sd_write(drip_sd_t *sd, uint32_t block, const uint8_t *data, uint32_t count)
{
    int result = start(sd, TRANSFER_WRITE, block, count);

    if (result == DRIP_ERR_OK) {
        sd->out = data;
    }
    return result;
}

/* ------------------------------------------------------------------ transfers */

static int finish(drip_sd_t *sd, int result, uint8_t stage)
{
    drip_sd_release(sd);
    sd->transfer = TRANSFER_NONE;
    sd->stage = stage;
    sd->result = result;
    return result;
}

/* Ends this try; what becomes of the transfer is decided when the card is no longer busy. */
static int fail(drip_sd_t *sd, int code)
{
    sd->result = code;
    /* Ends a read of many blocks, and a write that the card has broken off. Elsewhere it is refused,
     * which does no harm. */
    if (sd->count > 1) {
        drip_sd_command(sd, CMD_STOP, 0);
    }
    drip_sd_release(sd);
    drip_sd_enter(sd, STAGE_SETTLE);
    return DRIP_ERR_BUSY;
}

static int begin(drip_sd_t *sd)
{
    int is_read = sd->transfer == TRANSFER_READ, many = sd->count > 1, answer;
    uint32_t address = sd->by_block ? sd->block : sd->block * DRIP_BLOCK_BYTES;
    uint8_t index = (uint8_t)(is_read ? (many ? CMD_READ_MANY : CMD_READ_ONE)
                                      : (many ? CMD_WRITE_MANY : CMD_WRITE_ONE));

    sd->done = 0;
    if (!is_read && many) {
        /* Only makes it faster; a card that refuses it writes all the same. */
        drip_sd_application(sd, ACMD_PRE_ERASE, sd->count & 0x7FFFFFu);
        drip_sd_release(sd);
    }
    answer = drip_sd_command(sd, index, address);
    if (answer != 0) {
        return fail(sd, answer < 0 ? DRIP_ERR_TIMEOUT : DRIP_ERR_IO);
    }
    sd->contact_ms = sd->bus->millis(sd->bus->context);
    drip_sd_enter(sd, is_read ? STAGE_READ : STAGE_WRITE);
    return DRIP_ERR_BUSY;
}

static int read_block(drip_sd_t *sd)
{
    int result = drip_sd_receive(sd, sd->in + sd->done * DRIP_BLOCK_BYTES, DRIP_BLOCK_BYTES);

    if (result == DRIP_ERR_BUSY) {
        return result;
    }
    if (result < 0) {
        return fail(sd, result);
    }
    sd->contact_ms = sd->bus->millis(sd->bus->context);
    sd->done++;
    if (sd->done < sd->count) {
        drip_sd_enter(sd, STAGE_READ);
        return DRIP_ERR_BUSY;
    }
    if (sd->count > 1) {
        /* The card may begin another block, even one behind its end: an error here is not of ours. */
        drip_sd_command(sd, CMD_STOP, 0);
    }
    drip_sd_enter(sd, STAGE_STOP);
    return DRIP_ERR_BUSY;
}

static int write_block(drip_sd_t *sd)
{
    const uint8_t *data = sd->out + sd->done * DRIP_BLOCK_BYTES;
    uint16_t crc = drip_sd_crc16(data, DRIP_BLOCK_BYTES);
    uint8_t head[2] = {0xFF, sd->count > 1 ? TOKEN_MANY : TOKEN_BLOCK};
    uint8_t tail[2] = {(uint8_t)(crc >> 8), (uint8_t)crc};
    uint8_t response = 0xFF;

    sd->bus->exchange(sd->bus->context, head, NULL, sizeof(head));
    sd->bus->exchange(sd->bus->context, data, NULL, DRIP_BLOCK_BYTES);
    sd->bus->exchange(sd->bus->context, tail, NULL, sizeof(tail));
    for (int i = 0; i < ANSWER_BYTES && (response & 0x11) != 0x01; i++) {
        response = drip_sd_byte(sd);
    }
    if ((response & 0x11) != 0x01) {
        return fail(sd, DRIP_ERR_TIMEOUT);
    }
    sd->contact_ms = sd->bus->millis(sd->bus->context);
    if ((response & RESPONSE_MASK) != RESPONSE_ACCEPTED) {
        int is_crc = (response & RESPONSE_MASK) == RESPONSE_CRC;

        sd->crc_errors += (uint32_t)is_crc;
        return fail(sd, is_crc ? DRIP_ERR_CRC : DRIP_ERR_IO);
    }
    drip_sd_enter(sd, STAGE_PROGRAM);
    return DRIP_ERR_BUSY;
}

static int programmed(drip_sd_t *sd)
{
    uint8_t stop[2] = {TOKEN_STOP, 0xFF};

    sd->done++;
    if (sd->done < sd->count) {
        drip_sd_enter(sd, STAGE_WRITE);
        return DRIP_ERR_BUSY;
    }
    if (sd->count > 1) {
        sd->bus->exchange(sd->bus->context, stop, NULL, sizeof(stop));
    }
    drip_sd_enter(sd, STAGE_STOP);
    return DRIP_ERR_BUSY;
}

/* The card is no longer busy: was all well? */
static int stopped(drip_sd_t *sd)
{
    int status;

    drip_sd_release(sd);
    if (sd->transfer == TRANSFER_READ && sd->checks) {
        return finish(sd, DRIP_ERR_OK, STAGE_READY); /* the checksums have said it */
    }
    status = drip_sd_status(sd);
    if (status == 0) {
        return finish(sd, DRIP_ERR_OK, STAGE_READY);
    }
    if (status > 0 && status >> 8 == 0 && (status & R2_PROTECTED) != 0) {
        return finish(sd, DRIP_ERR_PROTECTED, STAGE_READY);
    }
    return fail(sd, status < 0 ? DRIP_ERR_TIMEOUT : DRIP_ERR_IO);
}

/* After an error: again, again from the start of the card, or no more. */
static int settled(drip_sd_t *sd)
{
    int status = drip_sd_status(sd);

    sd->tries++;
    /* A card in the idle state has lost its power. Error bits are cleared by being read. */
    if (status < 0 || (status >> 8 & R1_IDLE) != 0) {
        sd->lost = 1;
    }
    if (sd->tries >= DRIP_SD_TRIES) {
        return finish(sd, sd->lost ? DRIP_ERR_NO_CARD : (int)sd->result, STAGE_OFF);
    }
    sd->retries++;
    if (sd->lost || sd->tries == DRIP_SD_TRIES - 1) {
        if (sd->result == DRIP_ERR_CRC && sd->hz > 4 * (uint32_t)DRIP_SD_START_HZ) {
            sd->hz /= 2;
        }
        sd->stage = STAGE_OFF;
    } else {
        drip_sd_enter(sd, STAGE_WAIT);
    }
    return DRIP_ERR_BUSY;
}

static int restart(drip_sd_t *sd)
{
    int result = drip_sd_start_step(sd);

    if (result == DRIP_ERR_OK) {
        drip_sd_enter(sd, STAGE_WAIT);
        return DRIP_ERR_BUSY;
    }
    return result == DRIP_ERR_BUSY ? result : finish(sd, DRIP_ERR_NO_CARD, STAGE_OFF);
}

int drip_sd_poll(drip_sd_t *sd)
{
    if (sd->transfer == TRANSFER_NONE) {
        return sd->result;
    }
    if (sd->stage < STAGE_READY) {
        return restart(sd);
    }
    if (sd->stage == STAGE_READ) {
        return read_block(sd);
    }
    if (sd->stage == STAGE_WRITE) {
        return write_block(sd);
    }
    if (!is_ready(sd)) {
        if (drip_sd_elapsed(sd) <= DRIP_SD_BUSY_MS) {
            return DRIP_ERR_BUSY;
        }
        if (sd->stage == STAGE_STOP && sd->transfer == TRANSFER_READ) {
            return fail(sd, DRIP_ERR_TIMEOUT); /* it goes on sending: the stop got lost */
        }
        /* Busy for ever: nothing can be asked of it any more. */
        return finish(sd, DRIP_ERR_TIMEOUT, STAGE_OFF);
    }
    if (sd->stage == STAGE_WAIT) {
        return begin(sd);
    }
    if (sd->stage == STAGE_PROGRAM) {
        return programmed(sd);
    }
    return sd->stage == STAGE_STOP ? stopped(sd) : settled(sd);
}
