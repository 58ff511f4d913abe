/* A whole device on the portable files of the ESP32 port (ring, desk, card store), driven by a script. The same
 * program runs on the computer and on emulated RV32, and must send the same bytes and leave the same cards.
 *
 * The model lies in the image. The inputs are: u32 size of the card and its content, then frames for the line, each
 * u32 microseconds that it may take, u32 size, bytes. Lines, in hexadecimal: "selftest CODE", "line BYTES" for
 * each frame, "card CRC INSTRUCTIONS" of the log's card and of that with the slots, "end". */
#include "board.h"
#include "cardstore.h"
#include "drip/bytes.h"
#include "drip/device.h"
#include "job.h"
#include "ring.h"

#include <string.h>

enum { CARD_BYTES = 1 << 20, SLOT_CARD_BLOCKS = 256, SLOT_BYTES = 24 * 1024, STEP_US = 20 };
enum { PARTITION_TYPE = 446 + 4, PARTITION_START = 446 + 8 };

extern const uint8_t model_start[], model_end[], inputs_start[], inputs_end[];

static _Alignas(16) uint8_t card[CARD_BYTES], slot_card[SLOT_CARD_BLOCKS * DRIP_BLOCK_BYTES];
static _Alignas(16) uint8_t arena[1 << 16], capture[2][8192];
static _Alignas(16) uint8_t mirror[2 * SLOT_BYTES + 2 * CARDSTORE_JOURNAL_BYTES];
static _Alignas(4) uint8_t scratch[4096];
static uint8_t entries[2 * CARDSTORE_ENTRIES * DRIP_SLOT_ENTRY_BYTES];
static drip_frame_t captured[2];
static drip_device_t device;
static drip_port_t port;
static ring_t to_device, to_host;
static desk_t card_desk, slot_desk;
static cardstore_t store;
static uint32_t card_bytes;
static uint64_t now_us;

/* ------------------------------------------------------------------ what waits: a step of the "worker" */

static int slot_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    (void)context;
    memcpy(data, slot_card + block * DRIP_BLOCK_BYTES, count * DRIP_BLOCK_BYTES);
    return 0;
}

static int slot_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    (void)context;
    memcpy(slot_card + block * DRIP_BLOCK_BYTES, data, count * DRIP_BLOCK_BYTES);
    return 0;
}

static int entry_get(void *context, uint32_t entry, uint8_t *data)
{
    (void)context;
    memcpy(data, entries + entry * DRIP_SLOT_ENTRY_BYTES, DRIP_SLOT_ENTRY_BYTES);
    return 0;
}

static int entry_set(void *context, uint32_t entry, const uint8_t *data)
{
    (void)context;
    memcpy(entries + entry * DRIP_SLOT_ENTRY_BYTES, data, DRIP_SLOT_ENTRY_BYTES);
    return 0;
}

static int entry_forget(void *context, uint32_t entry)
{
    (void)context;
    memset(entries + entry * DRIP_SLOT_ENTRY_BYTES, 0xFF, DRIP_SLOT_ENTRY_BYTES);
    return 0;
}

static void work(void)
{
    job_t job;

    if (desk_take(&card_desk, &job)) {
        uint8_t *at = card + job.at * DRIP_BLOCK_BYTES;
        uint32_t size = job.count * DRIP_BLOCK_BYTES;

        memcpy(job.kind ? at : job.data, job.kind ? job.data : at, size);
        desk_finish(&card_desk, DRIP_ERR_OK);
    }
    if (desk_take(&slot_desk, &job)) {
        desk_finish(&slot_desk, job.kind ? cardstore_write(&store, job.at, job.data, job.count)
                                         : cardstore_erase(&store, job.at, job.count));
    }
}

/* ------------------------------------------------------------------ port */

static uint64_t time_us(void *context)
{
    (void)context;
    return now_us;
}

static int link_read(void *context, uint8_t *data, uint32_t size)
{
    uint32_t got = ring_look(&to_device, data, size);

    (void)context;
    ring_drop(&to_device, got);
    return (int)got;
}

static int link_write(void *context, const uint8_t *data, uint32_t size)
{
    (void)context;
    return (int)ring_put(&to_host, data, size);
}

static int post(desk_t *desk, int kind, uint32_t at, const void *data, uint32_t count)
{
    const job_t job = {
        .kind = (uint8_t)kind, .at = at, .count = count, .data = (void *)(uintptr_t)data};

    return desk_post(desk, &job);
}

static int card_blocks(void *context, uint32_t *blocks)
{
    (void)context;
    *blocks = card_bytes / DRIP_BLOCK_BYTES;
    return 0;
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    (void)context;
    return post(&card_desk, 0, block, data, count);
}

static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    (void)context;
    return post(&card_desk, 1, block, data, count);
}

static int card_poll(void *context)
{
    (void)context;
    return desk_poll(&card_desk);
}

static uint32_t offset_of(int area)
{
    return area < 2 ? (uint32_t)area * SLOT_BYTES
                    : 2 * SLOT_BYTES + (uint32_t)(area - 2) * CARDSTORE_JOURNAL_BYTES;
}

static const uint8_t *flash_map(void *context, int area)
{
    (void)context;
    return mirror + offset_of(area);
}

static int flash_erase(void *context, int area)
{
    (void)context;
    return post(&slot_desk, 0, offset_of(area), NULL,
                area < 2 ? (uint32_t)SLOT_BYTES : (uint32_t)CARDSTORE_JOURNAL_BYTES);
}

static int flash_write(void *context, int area, uint32_t offset, const uint8_t *data, uint32_t size)
{
    (void)context;
    return post(&slot_desk, 1, offset_of(area) + offset, data, size);
}

static int flash_poll(void *context)
{
    (void)context;
    return desk_poll(&slot_desk);
}

static void reset(void *context)
{
    (void)context;
}

/* ------------------------------------------------------------------ script */

static uint32_t u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void print_line(void)
{
    static const char digits[] = "0123456789abcdef";
    char text[3] = {0, 0, 0};
    uint8_t byte;

    while (ring_look(&to_host, &byte, 1) != 0) {
        ring_drop(&to_host, 1);
        text[0] = digits[byte >> 4];
        text[1] = digits[byte & 15];
        board_text(text);
    }
}

static void run(uint32_t us)
{
    uint64_t until = now_us + us;

    while (now_us < until) {
        now_us += drip_device_step(&device) ? (uint64_t)STEP_US : 1000u;
        work();
        print_line();
    }
}

static const cardstore_io_t io = {NULL, slot_read, slot_write, entry_get, entry_set, entry_forget};

static int start(void)
{
    const drip_device_memory_t memory = {
        .arena = arena,
        .arena_bytes = sizeof(arena),
        .capture = capture[0],
        .capture_bytes = sizeof(capture[0]),
        .capture_frames = 2,
        .captured = captured,
        .scratch = scratch,
        .scratch_bytes = sizeof(scratch),
        .fixed_model = model_start,
        .fixed_model_bytes = (uint32_t)(model_end - model_start),
    };

    memset(entries, 0xFF, sizeof(entries));
    slot_card[PARTITION_TYPE] = 0x0C;
    slot_card[PARTITION_START] = SLOT_CARD_BLOCKS - 1;
    slot_card[510] = 0x55;
    slot_card[511] = 0xAA;
    if (cardstore_open(&store, &io, mirror, SLOT_BYTES) < 0) {
        return DRIP_ERR_IO;
    }
    port.time_us = time_us;
    port.link_read = link_read;
    port.link_write = link_write;
    port.card_blocks = card_blocks;
    port.card_read = card_read;
    port.card_write = card_write;
    port.card_poll = card_poll;
    port.flash_map = flash_map;
    port.slot_bytes = SLOT_BYTES;
    port.journal_bytes = CARDSTORE_JOURNAL_BYTES;
    port.flash_erase = flash_erase;
    port.flash_write = flash_write;
    port.flash_poll = flash_poll;
    port.reset = reset;
    return drip_device_init(&device, &port, &memory);
}

static void print_card(const uint8_t *data, uint32_t size, uint32_t spent)
{
    board_text("\ncard ");
    board_hex(drip_crc32(0, data, size));
    board_hex(spent);
}

static int selftest(void)
{
    static drip_nn_t nn;
    int code = drip_nn_open(&nn, model_start, (uint32_t)(model_end - model_start));

    if (code == DRIP_ERR_OK) {
        code = drip_nn_bind(&nn, arena, sizeof(arena));
    }
    return code < 0 ? code : drip_nn_selftest(&nn);
}

int main(void)
{
    const uint8_t *at = inputs_start + 4;
    uint32_t before = board_count();

    board_text("selftest ");
    board_hex((uint32_t)selftest());
    card_bytes = u32(inputs_start);
    memcpy(card, at, card_bytes);
    at += card_bytes;
    if (start() < 0) {
        return 1;
    }
    while (at < inputs_end) {
        uint32_t us = u32(at), size = u32(at + 4);

        board_text("\nline ");
        ring_put(&to_device, at + 8, size);
        run(us);
        at += 8 + size;
    }
    print_card(card, card_bytes, board_count() - before);
    print_card(slot_card, sizeof(slot_card), 0);
    board_text("\nend\n");
    return 0;
}
