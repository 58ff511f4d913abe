/* Counts the block reads of a mount: a log of 32 GiB, at many fill levels, with and without superblocks.
 *
 * Usage: mount     Prints the most reads with both superblocks, with one, and with none.
 *
 * The card is sparse: blocks that were written are kept, segment headers (and, in a log that evicts, some
 * records) that this program does not write are made when they are read, everything else is zeros. */
#include "sim.h"

enum {
    BLOCKS = 1 << 26,
    UNIT = 8192,
    SEGMENT = 512,
    TABLE = 1 << 14,
    RECORDS = 31, /* in a segment that was not written here: up to the first mark */
    BOUND = 64,
};

typedef struct {
    uint32_t block; /* + 1, 0 = free */
    uint8_t data[DRIP_BLOCK_BYTES];
} kept_t;

static kept_t *kept;
static uint64_t reads;
static drip_superblock_t geometry;
static uint32_t newest;  /* segments below this have a header */
static uint32_t history; /* every segment took records over from a victim, and has records itself */
static uint32_t evicted;
static drip_log_t the_log;
static drip_port_t port;

static kept_t *find(uint32_t block)
{
    uint32_t at = block * 2654435761u >> 18;

    while (kept[at].block != 0 && kept[at].block != block + 1) {
        at = (at + 1) % TABLE;
    }
    return &kept[at];
}

static void make_header(uint32_t segment, uint8_t *out)
{
    drip_segment_header_t header;

    memset(&header, 0, sizeof(header));
    header.magic = DRIP_SEGMENT_MAGIC;
    header.version = DRIP_SEGMENT_VERSION;
    header.header_bytes = DRIP_SEGMENT_HEADER_BYTES;
    memcpy(header.log_uuid, geometry.log_uuid, 16);
    header.segment = segment;
    header.boot_id = 1;
    header.first_seq = (uint64_t)segment * 100 + 1;
    header.segment_bytes = SEGMENT * DRIP_BLOCK_BYTES;
    header.data_block = geometry.data_block;
    header.unit_blocks = UNIT;
    header.segment_count = geometry.segment_count;
    header.region_blocks = BLOCKS;
    header.acked_segment = segment > geometry.segment_count ? segment - geometry.segment_count : 0;
    if (history) {
        header.acked_segment = 0;
        header.tail_segment = segment - geometry.segment_count + 1;
        header.victim = header.tail_segment;
        header.first_seq = 0;
        header.next_seq = (uint64_t)segment * 100 + 1;
        header.previous_records = RECORDS;
        header.previous_bytes = (RECORDS + 1) * DRIP_BLOCK_BYTES;
    }
    header.crc = drip_crc32(0, &header, sizeof(header) - 4);
    memcpy(out, &header, sizeof(header));
}

/* A record fills a block. */
static void make_record(uint32_t segment, uint32_t block, uint8_t *out)
{
    drip_record_header_t header;
    uint32_t seed = drip_crc32(0, geometry.log_uuid, 16);
    uint32_t size = DRIP_BLOCK_BYTES - DRIP_RECORD_HEADER_BYTES;

    memset(&header, 0, sizeof(header));
    header.magic = DRIP_RECORD_MAGIC;
    header.version = DRIP_RECORD_VERSION;
    header.header_bytes = DRIP_RECORD_HEADER_BYTES;
    header.payload_bytes = size;
    header.seq = (uint64_t)segment * 100 + block;
    header.boot_id = 1;
    header.percentile = (uint16_t)(block * 2000);
    sim_payload(segment + block, out + DRIP_RECORD_HEADER_BYTES, size);
    header.payload_crc = drip_crc32(0, out + DRIP_RECORD_HEADER_BYTES, size);
    header.header_crc =
        drip_crc32(drip_crc32(seed, &segment, 4), &header, DRIP_RECORD_HEADER_BYTES - 4);
    memcpy(out, &header, sizeof(header));
}

static void read_one(uint32_t block, uint8_t *out)
{
    const kept_t *found = find(block);
    uint32_t from = block - geometry.data_block;
    uint32_t slot = from / SEGMENT;
    uint32_t count = geometry.segment_count;

    reads++;
    memset(out, 0, DRIP_BLOCK_BYTES);
    if (found->block != 0) {
        memcpy(out, found->data, DRIP_BLOCK_BYTES);
    } else if (block >= geometry.data_block && from % SEGMENT <= RECORDS * history &&
               slot < count) {
        uint32_t turn = newest / count;
        uint32_t segment = turn * count + slot;

        if (segment >= newest && turn == 0) {
            return;
        }
        segment -= segment >= newest ? count : 0;
        if (from % SEGMENT == 0) {
            make_header(segment, out);
        } else {
            make_record(segment, from % SEGMENT, out);
        }
    }
}

static int size_of(void *context, uint32_t *blocks)
{
    (void)context;
    *blocks = BLOCKS;
    return DRIP_ERR_OK;
}

static int start_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    uint32_t i;

    (void)context;
    for (i = 0; i < count; i++) {
        read_one(block + i, data + (size_t)i * DRIP_BLOCK_BYTES);
    }
    return DRIP_ERR_OK;
}

static int start_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    uint32_t i;

    (void)context;
    for (i = 0; i < count; i++) {
        kept_t *at = find(block + i);

        at->block = block + i + 1;
        memcpy(at->data, data + (size_t)i * DRIP_BLOCK_BYTES, DRIP_BLOCK_BYTES);
    }
    return DRIP_ERR_OK;
}

static int poll(void *context)
{
    (void)context;
    return DRIP_ERR_OK;
}

static uint64_t now(void *context)
{
    (void)context;
    return 0;
}

static void drive(void)
{
    while (drip_log_step(&the_log)) {
    }
}

static void mount(void)
{
    drip_log_config_t config = {1000000, 16384, DRIP_FULL_OVERWRITE_ACKED, 0, {0}};

    if (history) {
        config.full_mode = DRIP_FULL_EVICT;
        config.class_floor = 2;
    }
    memset(&the_log, 0, sizeof(the_log));
    reads = 0;
    (void)drip_log_mount(&the_log, &port, &config, 0, 0);
    drive();
    MUST(the_log.card == DRIP_CARD_READY, "state %u", the_log.card);
}

/* An empty log, and then one in which `segments` were written and acknowledged. */
static void prepare(uint32_t segments)
{
    drip_log_geometry_t wanted = {{7, 7, 7}, 0, BLOCKS, UNIT, SEGMENT};
    drip_superblock_t work;
    uint32_t copy;

    memset(kept, 0, TABLE * sizeof(*kept));
    newest = segments;
    MUST(drip_log_format(&port, &wanted, &work) == DRIP_ERR_OK, "format");
    geometry = work;
    find(work.data_block)->block = find(work.data_block)->block ? work.data_block + 1 : 0;
    if (segments == 0) {
        return;
    }
    memset(find(work.data_block), 0, sizeof(*kept));
    for (copy = 0; copy < 2; copy++) {
        work.generation = 10 + copy;
        work.next_segment = segments;
        work.acked_segment = history ? 0 : segments;
        work.tail_segment = history ? segments - geometry.segment_count + 1 : 0;
        work.boot_id = history;
        work.next_seq = (uint64_t)segments * 100 + 5000;
        work.crc = drip_crc32(0, &work, sizeof(work) - 4);
        start_write(NULL, copy == 0 ? 0 : BLOCKS - 1, (const uint8_t *)&work, 1);
    }
}

static void append(uint32_t size, uint64_t *chance)
{
    static uint8_t payload[DRIP_MAX_FRAME_BYTES];
    drip_record_header_t header;

    memset(&header, 0, sizeof(header));
    header.payload_bytes = size;
    sim_payload(sim_random(chance), payload, size);
    header.percentile = (uint16_t)sim_random(chance);
    while (drip_log_append(&the_log, &header, payload) == DRIP_ERR_BUSY) {
        drive();
    }
    drive();
    MUST(the_log.pending < 1000 && the_log.card == DRIP_CARD_READY, "append");
}

static uint64_t most[3];
static uint64_t most_evicting;

/* Mounts after a power loss, with superblocks gone. */
static void measure(uint32_t gone, uint64_t durable, uint64_t next_seq)
{
    static kept_t *before;
    uint64_t tail = drip_log_tail(&the_log);
    uint32_t kind = gone == 0 ? 0 : gone == 3 ? 2 : 1;

    if (before == NULL) {
        before = malloc(TABLE * sizeof(*kept));
    }
    memcpy(before, kept, TABLE * sizeof(*kept));
    if (gone & 1) {
        memset(find(0)->data, 0, DRIP_BLOCK_BYTES);
    }
    if (gone & 2) {
        memset(find(BLOCKS - 1)->data, 0, DRIP_BLOCK_BYTES);
    }
    mount();
    MUST(reads <= BOUND, "%u block reads", (unsigned)reads);
    most[kind] = reads > most[kind] ? reads : most[kind];
    most_evicting = history && kind < 2 && reads > most_evicting ? reads : most_evicting;
    MUST(!history || drip_log_tail(&the_log) == tail,
         "%u superblocks gone: the tail is %llu, it was %llu", gone,
         (unsigned long long)drip_log_tail(&the_log), (unsigned long long)tail);
    MUST(drip_log_durable(&the_log) >= durable,
         "durable records are lost: %llu < %llu, %u segments, superblocks gone: %u",
         (unsigned long long)drip_log_durable(&the_log), (unsigned long long)durable, newest, gone);
    MUST(the_log.next_seq >= next_seq, "sequence numbers are used again");
    memcpy(kept, before, TABLE * sizeof(*kept));
}

static void fill(uint32_t segments, uint32_t size, uint32_t number, uint64_t *chance)
{
    uint64_t durable;
    uint64_t next_seq;
    uint32_t gone;
    uint32_t i;

    prepare(segments);
    mount();
    for (i = 0; i < number; i++) {
        append(1 + sim_below(chance, 2 * size), chance);
        if (sim_below(chance, 8) == 0) {
            (void)drip_log_sync(&the_log);
            drive();
        }
    }
    evicted += history * (the_log.next_segment - segments);
    durable = drip_log_durable(&the_log);
    next_seq = the_log.next_seq;
    /* Without a record of its own there is nothing to find again. */
    for (gone = 0; gone < (number == 0 ? 1 : 4); gone++) {
        measure(gone, durable, next_seq);
    }
}

int main(void)
{
    static const uint32_t SEGMENTS[] = {0,      1,      2,       3,       17,     1000,
                                        65537,  131053, 131054,  131055,  131056, 131057,
                                        200000, 262143, 1000000, 50000000};
    static const uint32_t SIZES[] = {4, 500, 1024, 5000, 32000};
    uint64_t chance = 1;
    uint32_t i;
    uint32_t k;

    kept = calloc(TABLE, sizeof(*kept));
    port.time_us = now;
    port.card_blocks = size_of;
    port.card_read = start_read;
    port.card_write = start_write;
    port.card_poll = poll;
    for (i = 0; i < sizeof(SEGMENTS) / sizeof(SEGMENTS[0]); i++) {
        for (k = 0; k < 30; k++) {
            uint32_t size = SIZES[k % 5];

            fill(SEGMENTS[i], size, sim_below(&chance, 300000 / (size + 80)), &chance);
        }
    }
    history = 1;
    for (k = 0; k < 60; k++) {
        static const uint32_t TURNED[] = {131055, 200000, 262143, 1000000};

        fill(TURNED[k % 4], SIZES[k % 5], sim_below(&chance, 900000 / (SIZES[k % 5] + 80)),
             &chance);
    }
    printf("most block reads: %u, one superblock gone: %u, both gone: %u; after %u evictions: %u\n",
           (unsigned)most[0], (unsigned)most[1], (unsigned)most[2], evicted,
           (unsigned)most_evicting);
    free(kept);
    return 0;
}
