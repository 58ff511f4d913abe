/* Every function that a board implements. As it stands it compiles, and describes a board without card,
 * flash and sensor whose UART goes nowhere. */
#include "port.h"

#include <string.h>

/* ------------------------------------------------------------------ time */

static volatile uint32_t milliseconds;

void board_on_millisecond(void)
{
    milliseconds++;
}

/* FIXME: microseconds, monotonic over the whole run: not 32 bits that wrap after 71 minutes. A
 * hardware timer gives the microseconds inside the millisecond; this only counts milliseconds. */
static uint64_t time_us(void *context)
{
    static uint32_t last;
    static uint64_t wrapped;
    uint32_t now = milliseconds;

    (void)context;
    if (now < last) {
        wrapped += (uint64_t)1 << 32;
    }
    last = now;
    return (wrapped + now) * 1000u;
}

/* ------------------------------------------------------------------ UART */

/* One side writes `end`, the other `begin`: no lock is needed. The receive ring takes what arrives while
 * the owner computes for 5 ms: at 921600 baud 460 bytes, at 115200 baud 58. */
enum { RING_BYTES = 1024 };

typedef struct {
    volatile uint32_t begin;
    volatile uint32_t end;
    uint8_t bytes[RING_BYTES];
} ring_t;

static ring_t received;
static ring_t to_send;

static int ring_put(ring_t *ring, uint8_t byte)
{
    if (ring->end - ring->begin == RING_BYTES) {
        return 0;
    }
    ring->bytes[ring->end % RING_BYTES] = byte;
    ring->end++;
    return 1;
}

static int ring_get(ring_t *ring)
{
    uint8_t byte;

    if (ring->begin == ring->end) {
        return -1;
    }
    byte = ring->bytes[ring->begin % RING_BYTES];
    ring->begin++;
    return byte;
}

/* A full ring loses the byte: the frame then fails its CRC and the host asks again. */
void board_on_uart_received(uint8_t byte)
{
    ring_put(&received, byte);
}

int board_on_uart_ready(void)
{
    return ring_get(&to_send);
}

static int link_read(void *context, uint8_t *data, uint32_t size)
{
    uint32_t count = 0;
    int byte;

    (void)context;
    while (count < size && (byte = ring_get(&received)) >= 0) {
        data[count++] = (uint8_t)byte;
    }
    return (int)count;
}

static int link_write(void *context, const uint8_t *data, uint32_t size)
{
    uint32_t count = 0;

    (void)context;
    while (count < size && ring_put(&to_send, data[count])) {
        count++;
    }
    /* FIXME: switch the transmit interrupt on. */
    return (int)count;
}

/* ------------------------------------------------------------------ card */

/* FIXME: bring the card up without waiting: one step per call, DRIP_ERR_BUSY until it is ready, and its
 * number of 512-byte blocks then. DRIP_ERR_NO_CARD when nothing answers within a second. Called again
 * every second after that, so that a card that is put in later is found. */
static int card_blocks(void *context, uint32_t *blocks)
{
    (void)context;
    *blocks = 0;
    return DRIP_ERR_NO_CARD;
}

/* FIXME: start to read (DMA, or as much as fits a millisecond) and return. */
static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    (void)context;
    (void)block;
    (void)data;
    (void)count;
    return DRIP_ERR_NO_CARD;
}

/* FIXME: start to write. DRIP_ERR_PROTECTED, here or from card_poll, when the card's lock switch is on. */
static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    (void)context;
    (void)block;
    (void)data;
    (void)count;
    return DRIP_ERR_NO_CARD;
}

/* FIXME: DRIP_ERR_BUSY while the transfer runs. A write is done when the card has left its busy state,
 * not when the last byte was clocked out. With a time limit of your own: DRIP_ERR_TIMEOUT after 500 ms. */
static int card_poll(void *context)
{
    (void)context;
    return DRIP_ERR_NO_CARD;
}

/* ------------------------------------------------------------------ flash for models */

/* FIXME: areas 0 and 1 for models, 2 and 3 for the journal, each a set of erase units of its own. Leave
 * flash_map NULL on a board whose model is part of the image. */
static const uint8_t *flash_map(void *context, int area)
{
    (void)context;
    (void)area;
    return NULL;
}

/* FIXME: start to erase. Where the CPU stalls while flash works, this may take as long as it takes. */
static int flash_erase(void *context, int area)
{
    (void)context;
    (void)area;
    return DRIP_ERR_UNSUPPORTED;
}

/* FIXME: program; offset and size are multiples of 16, `data` may start anywhere. */
static int flash_write(void *context, int area, uint32_t offset, const uint8_t *data, uint32_t size)
{
    (void)context;
    (void)area;
    (void)offset;
    (void)data;
    (void)size;
    return DRIP_ERR_UNSUPPORTED;
}

/* FIXME: DRIP_ERR_BUSY until the operation is done and the cache in front of the flash, if any, is
 * invalidated: the core reads back what it wrote. */
static int flash_poll(void *context)
{
    (void)context;
    return DRIP_ERR_UNSUPPORTED;
}

/* ------------------------------------------------------------------ sensor */

/* FIXME: copy a finished frame to `buffer`, set size, time_us (when it was captured) and stream_id, and
 * return 1. Never wait for one. A frame that had to be dropped because the one before was still in work
 * is reported with drip_device_lost. */
static int sensor_poll(void *context, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    (void)context;
    (void)buffer;
    (void)buffer_bytes;
    (void)frame;
    return 0;
}

/* FIXME: what the frames are, so that a card can be read without this board. */
static int sensor_stream(void *context, uint32_t index, drip_stream_t *stream)
{
    (void)context;
    if (index != 0) {
        return 0;
    }
    memset(stream, 0, sizeof(*stream));
    stream->id = 0;
    stream->dtype = DRIP_DTYPE_U8;
    stream->rank = 1;
    stream->shape[0] = 64;
    stream->shape[1] = stream->shape[2] = stream->shape[3] = 1;
    stream->rate_mhz = 1000;
    stream->scale = 0x3F800000; /* 1.0f */
    return 1;
}

/* ------------------------------------------------------------------ the rest */

/* FIXME: restart the processor. */
static void reset(void *context)
{
    (void)context;
}

/* FIXME: kick the watchdog. Give it 100 ms, or a second where flash erases stall the processor: a model on
 * trial that hangs is left by this reset. */
static void watchdog(void *context)
{
    (void)context;
}

void board_start(drip_port_t *port)
{
    /* FIXME: clocks, pins, UART at DRIP_LINK_BAUD_DEFAULT 8N1, millisecond timer, card interface. */
    memset(port, 0, sizeof(*port));
    port->time_us = time_us;
    port->link_read = link_read;
    port->link_write = link_write;
    port->link_baud = NULL;    /* a function when the rate of the line can be changed; then also: */
    port->baud_most = 0;       /* the highest rate that it takes and that the rings keep up with */
    port->board_status = NULL; /* a function when the board keeps a record of its last fault */
    port->boot_reason = DRIP_BOOT_UNKNOWN; /* FIXME: most processors have a register that tells */
    port->card_blocks = card_blocks;
    port->card_read = card_read;
    port->card_write = card_write;
    port->card_poll = card_poll;
    port->flash_map = flash_map;
    port->slot_bytes = 128 * 1024;   /* FIXME */
    port->journal_bytes = 16 * 1024; /* FIXME */
    port->flash_erase = flash_erase;
    port->flash_write = flash_write;
    port->flash_poll = flash_poll;
    port->flash_stalls = 0; /* FIXME: 1 where the processor stands still while flash is erased */
    port->sensor_poll = sensor_poll;
    port->sensor_stream = sensor_stream;
    port->reset = reset;
    port->watchdog = watchdog;
    /* FIXME: 16 bytes that no other board has, from the chip's serial number. */
    memset(port->device_id, 0, sizeof(port->device_id));
    memcpy(port->name, "template", sizeof("template"));
}

void board_sleep(void)
{
    /* FIXME: wait for an interrupt (WFI). */
}
