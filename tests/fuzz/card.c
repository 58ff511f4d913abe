/* Anything at all where a log is expected: mounting, reading, appending, acknowledging, mounting again.
 *
 * The input is a mode, what is done (6 bytes), a number of empty blocks behind the image, then the
 * image. Checksums are put right unless the mode says otherwise. Each phase has a bounded number of steps. */
#include "drip/bytes.h"
#include "drip/log.h"

#include "board.h"

enum {
    MODE_RAW = 1,       /* the checksums stay as they are */
    MODE_STOP = 2,      /* full mode STOP */
    MODE_AT_ONCE = 4,   /* every record is committed at once */
    MODE_SHIFTED = 8,   /* the region starts in block 1 */
    MODE_POLLS = 0x30,  /* polls per transfer */
    MODE_FAULTS = 0xC0, /* transfers fail */

    IMAGE_BLOCKS = 128,
    EMPTY_BLOCKS = 64,
    EMPTY_EVICT = 128, /* from this on: full mode EVICT */
    ACTIONS = 6,
    PAYLOAD_BYTES = 4096,
    READ_BLOCKS = 4,
    /* A record that begins at every 8 bytes and seems to fill the rest is read from every one of them:
     * half the blocks per start, 64 starts per block, twice for good measure. */
    STEPS = 64 * (IMAGE_BLOCKS + EMPTY_BLOCKS) * (IMAGE_BLOCKS + EMPTY_BLOCKS) + 10000,
};

typedef struct {
    board_t board;
    drip_log_t *log;
    drip_log_config_t config;
    uint32_t first_block;
    uint8_t *payload;
    uint8_t *chunk;
} world_t;

/* ---------------------------------------------------------------- checksums */

static void fix_struct(uint8_t *block)
{
    const uint32_t crc = drip_crc32(0, block, DRIP_BLOCK_BYTES - 4);

    memcpy(block + DRIP_BLOCK_BYTES - 4, &crc, sizeof(crc));
}

/* Record headers of one segment, as far as the image goes. */
static void fix_records(uint8_t *image, uint32_t size, uint32_t at,
                        const drip_segment_header_t *header)
{
    uint32_t seed = drip_crc32(0, header->log_uuid, sizeof(header->log_uuid));
    const uint32_t end = header->segment_bytes < size - at ? at + header->segment_bytes : size;

    seed = drip_crc32(seed, &header->segment, sizeof(header->segment));
    for (at += DRIP_SEGMENT_HEADER_BYTES; at + DRIP_RECORD_HEADER_BYTES <= end;
         at += DRIP_RECORD_ALIGN) {
        drip_record_header_t record;
        uint64_t covered;

        memcpy(&record, image + at, sizeof(record));
        if (record.magic != DRIP_RECORD_MAGIC) {
            continue;
        }
        covered = record.header_bytes - DRIP_RECORD_HEADER_BYTES + (uint64_t)record.payload_bytes;
        if (record.header_bytes >= DRIP_RECORD_HEADER_BYTES &&
            covered <= end - at - DRIP_RECORD_HEADER_BYTES) {
            record.payload_crc =
                drip_crc32(0, image + at + DRIP_RECORD_HEADER_BYTES, (uint32_t)covered);
        }
        record.header_crc = drip_crc32(seed, &record, sizeof(record) - sizeof(record.header_crc));
        memcpy(image + at, &record, sizeof(record));
    }
}

static void fix_image(uint8_t *image, uint32_t size)
{
    uint32_t at;

    for (at = 0; at < size; at += DRIP_BLOCK_BYTES) {
        drip_segment_header_t header;

        memcpy(&header, image + at, sizeof(header));
        if (header.magic == DRIP_SEGMENT_MAGIC) {
            fix_records(image, size, at, &header);
        }
        if (header.magic == DRIP_SEGMENT_MAGIC || header.magic == DRIP_SUPERBLOCK_MAGIC) {
            fix_struct(image + at);
        }
    }
}

/* ---------------------------------------------------------------- use */

static int usable(const world_t *world)
{
    return world->log->card == DRIP_CARD_READY || world->log->card == DRIP_CARD_FULL;
}

static void drive(world_t *world)
{
    uint32_t steps = STEPS;

    while (drip_log_step(world->log)) {
        MUST(steps-- > 0);
        world->board.time_us += 10;
    }
    MUST(!drip_log_busy(world->log) && !world->board.card_busy);
}

static void mount(world_t *world)
{
    MUST(drip_log_mount(world->log, &world->board.port, &world->config, world->first_block, 0) ==
         DRIP_ERR_OK);
    drive(world);
    MUST(world->log->card != DRIP_CARD_MOUNTING);
    if (usable(world)) {
        MUST(drip_log_tail(world->log) <= drip_log_durable(world->log));
        MUST(drip_log_durable(world->log) <= drip_log_end(world->log));
        MUST(drip_log_capacity(world->log) <=
             (uint64_t)world->board.card_blocks * DRIP_BLOCK_BYTES);
        MUST(drip_log_end(world->log) - drip_log_tail(world->log) <= drip_log_capacity(world->log));
    }
}

static int read_some(world_t *world, uint64_t position, uint32_t size)
{
    int code = drip_log_read(world->log, position, world->chunk, size);

    if (code == DRIP_ERR_OK) {
        drive(world);
        code = drip_log_read_poll(world->log);
        MUST(code != DRIP_ERR_BUSY && code <= (int)size);
        MUST(code <= 0 || code % DRIP_BLOCK_BYTES == 0);
    }
    return code;
}

static void read_all(world_t *world)
{
    uint64_t position = drip_log_tail(world->log);
    uint32_t reads = 4 * (IMAGE_BLOCKS + EMPTY_BLOCKS);

    while (usable(world) && position < drip_log_durable(world->log)) {
        const int got = read_some(world, position, READ_BLOCKS * DRIP_BLOCK_BYTES);

        MUST(reads-- > 0);
        MUST(got != 0);
        position += got > 0 ? (uint64_t)got : DRIP_BLOCK_BYTES; /* a block may be unreadable */
    }
    (void)read_some(world, position, READ_BLOCKS * DRIP_BLOCK_BYTES);
    (void)read_some(world, position + ((uint64_t)1 << 40), READ_BLOCKS * DRIP_BLOCK_BYTES);
    (void)read_some(world, UINT64_MAX - DRIP_BLOCK_BYTES + 1, DRIP_BLOCK_BYTES);
    MUST(read_some(world, position, DRIP_BLOCK_BYTES - 1) < 0);
}

/* Appends a record that ends where its memory ends. */
static void append(world_t *world, uint32_t size)
{
    drip_record_header_t header;
    uint32_t evictions;
    int code;

    memset(&header, 0, sizeof(header));
    header.payload_bytes = size;
    header.percentile = (uint16_t)(size * 40503u);
    header.flags = size % 5 == 0 ? DRIP_REASON_RANDOM_SHARE : DRIP_REASON_THRESHOLD;
    header.class_1 = (uint16_t)(size % 70);
    for (evictions = 0; evictions < 3; evictions++) {
        code = drip_log_append(world->log, &header, world->payload + PAYLOAD_BYTES - size);
        drive(world);
        if (code != DRIP_ERR_BUSY) {
            break;
        }
        MUST(world->config.full_mode == DRIP_FULL_EVICT);
    }
    MUST(code != DRIP_ERR_BUSY);
    MUST(code <= DRIP_ERR_OK || world->config.full_mode == DRIP_FULL_EVICT);
}

static void acknowledge(world_t *world, uint32_t records)
{
    const drip_log_t *log = world->log;
    const uint64_t segment =
        log->super.segment_blocks == 0
            ? 0
            : drip_log_acked(log) / log->super.segment_blocks / DRIP_BLOCK_BYTES;

    if (drip_log_ack(world->log, (uint32_t)segment, records, log->digest) == DRIP_ERR_OK) {
        drive(world);
        MUST(drip_log_ack_poll(world->log) != DRIP_ERR_BUSY);
    }
    (void)drip_log_ack(world->log, records * 0x01010101u, 0, 0);
    drive(world);
}

static void act(world_t *world, uint8_t action)
{
    const uint32_t value = action >> 2;

    switch (action & 3) {
    case 0:
        append(world, 1 + value);
        break;
    case 1:
        append(world, 1 + value * 65);
        break;
    case 2:
        acknowledge(world, value);
        break;
    default:
        if (drip_log_sync(world->log) == DRIP_ERR_OK) {
            drive(world);
            MUST(!usable(world) || drip_log_pending(world->log) == 0);
        }
        if (value & 1) {
            read_all(world);
        }
        if (value & 2) {
            mount(world);
        }
    }
}

/* ---------------------------------------------------------------- the input */

static void prepare(world_t *world, fuzz_input_t *input, uint8_t mode)
{
    const uint32_t chosen = fuzz_u8(input);
    const uint32_t empty = chosen % EMPTY_BLOCKS;
    uint32_t blocks;

    memset(world, 0, sizeof(*world));
    board_init(&world->board);
    world->config.commit_ms = mode & MODE_AT_ONCE ? 0 : 1000;
    world->config.full_mode = mode & MODE_STOP ? DRIP_FULL_STOP : DRIP_FULL_OVERWRITE_ACKED;
    if (chosen >= EMPTY_EVICT) {
        world->config.full_mode = DRIP_FULL_EVICT;
        world->config.class_floor = (uint8_t)(chosen % 3);
    }
    world->board.card_polls = (mode & MODE_POLLS) >> 4;
    world->board.card_faults = (mode & MODE_FAULTS) != 0 ? 29u >> (mode >> 6) : 0;
    world->first_block = mode & MODE_SHIFTED ? 1 : 0;
    world->payload = fuzz_block(PAYLOAD_BYTES, 0xC3);
    world->chunk = fuzz_block(READ_BLOCKS * DRIP_BLOCK_BYTES, 0);
    world->log = (drip_log_t *)(void *)fuzz_block(sizeof(*world->log), 0);
    blocks = (uint32_t)(input->left / DRIP_BLOCK_BYTES);
    blocks = blocks < IMAGE_BLOCKS ? blocks : IMAGE_BLOCKS;
    board_add_card(&world->board, blocks + empty);
    if (blocks > 0) {
        fuzz_take(input, world->board.card, (size_t)blocks * DRIP_BLOCK_BYTES);
    }
    if (!(mode & MODE_RAW)) {
        fix_image(world->board.card, blocks * DRIP_BLOCK_BYTES);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t input = {data, size};
    const uint8_t mode = fuzz_u8(&input);
    uint8_t actions[ACTIONS];
    world_t world;
    int i;

    fuzz_take(&input, actions, sizeof(actions));
    prepare(&world, &input, mode);
    mount(&world);
    read_all(&world);
    for (i = 0; i < ACTIONS; i++) {
        act(&world, actions[i]);
    }
    read_all(&world);
    mount(&world);
    free(world.log);
    free(world.chunk);
    free(world.payload);
    board_free(&world.board);
    return 0;
}
