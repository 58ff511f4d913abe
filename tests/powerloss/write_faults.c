/* The n-th block write of a mixed workload goes wrong, for every n, and what the log has promised must hold.
 *
 * Usage: write_faults FAULT FIRST_SEED SEEDS [EVERY [AT]]
 *
 * FAULT    what the write that fails leaves, or why it fails:
 * nothing  an error, and the block is as it was (blocks of the same transfer before it are written)
 * whole    an error, and the block is written
 * torn     an error, and the block is partly written
 * noise    an error, and the block is garbled
 * start    the transfer does not even start
 * timeout  the card is busy for seconds, then the driver gives up; the block is old, new or torn
 * persist  every transfer fails from then on, some times, then the card is back
 * absent   the card is out for some mounts
 * protect  the card is write-protected for some mounts
 * stuck    this block can never be written again
 *
 * Each with the device running on, and with power cut right behind the error. EVERY takes each EVERY-th
 * write only. Prints what was tried; a failure prints the command that repeats it. */
#include "sim.h"

enum {
    OPERATIONS = 130,
    MOST = 1000, /* frames */
    MOUNTS = 60,
    GAPS = 400,
    MODES = 3,
};

enum fault {
    NOTHING,
    WHOLE,
    TORN,
    NOISE,
    START,
    TIMED_OUT,
    PERSIST,
    ABSENT,
    PROTECT,
    STUCK,
    FAULTS
};

static const char *const NAMES[FAULTS] = {"nothing", "whole",   "torn",   "noise",   "start",
                                          "timeout", "persist", "absent", "protect", "stuck"};

enum { PENDING, DURABLE, UNSURE };

typedef struct {
    uint64_t seq;
    uint32_t size;
    uint8_t state;
    uint8_t held; /* in a segment that the host was allowed to acknowledge */
    uint8_t read; /* as held, until that is known */
    uint8_t seen;
} entry_t;

typedef struct {
    uint64_t seq;
    drip_record_gap_t gap;
    uint8_t seen;
} told_t;

static struct {
    enum fault kind;
    uint32_t at; /* block write, from 1; 0 = none */
    uint32_t for_ops;
    uint32_t left; /* transfers or mounts that still fail */
    uint32_t block;
    uint32_t polls;
    uint32_t seen; /* block writes so far */
    uint32_t fired;
    uint64_t chance;
    int (*poll)(void *);
    int (*write)(void *, uint32_t, const uint8_t *, uint32_t);
} fault;

static entry_t entries[MOST];
static told_t told[GAPS];
static uint32_t tokens, waiting, gaps, mounts;
static uint64_t newest, last_seq, furthest;
static uint32_t last_segment;
static uint32_t refused, full, cuts;
static int evicting, acknowledges;
static drip_log_t the_log;
static uint64_t runs, faults_fired, records, lost_frames, unsure_frames, evictions, wraps;

static int usable(void)
{
    return the_log.card == DRIP_CARD_READY || the_log.card == DRIP_CARD_FULL;
}

/* ---------------------------------------------------------------- the card */

static int is_down(void)
{
    return fault.fired && fault.left > 0;
}

static void leave(sim_card_t *card, uint32_t block, const uint8_t *data, enum fault kind)
{
    uint8_t *to = card->data + (size_t)block * DRIP_BLOCK_BYTES;
    uint32_t where = 1 + sim_below(&fault.chance, DRIP_BLOCK_BYTES - 1);
    uint32_t i;

    if (kind == WHOLE || (kind == TORN && sim_below(&fault.chance, 2) == 0)) {
        memcpy(to, data, kind == WHOLE ? (uint32_t)DRIP_BLOCK_BYTES : where);
    } else if (kind == TORN) {
        memcpy(to + where, data + where, DRIP_BLOCK_BYTES - where);
    } else if (kind == NOISE) {
        for (i = 0; i < DRIP_BLOCK_BYTES; i++) {
            to[i] = (uint8_t)sim_random(&fault.chance);
        }
    }
}

static int code_of(enum fault kind)
{
    return kind == TIMED_OUT ? DRIP_ERR_TIMEOUT
           : kind == ABSENT  ? DRIP_ERR_NO_CARD
           : kind == PROTECT ? DRIP_ERR_PROTECTED
                             : DRIP_ERR_IO;
}

/* The write in flight fails at the block that it is the turn of. */
static int break_write(sim_card_t *card, uint32_t before)
{
    enum fault kind = fault.kind;
    uint32_t i;

    for (i = 0; i < before; i++) {
        leave(card, card->block + i, card->from + (size_t)i * DRIP_BLOCK_BYTES, WHOLE);
    }
    if (kind == TIMED_OUT || kind == PERSIST) {
        kind = (enum fault)sim_below(&fault.chance, NOISE);
    } else if (kind == ABSENT) {
        kind = (enum fault)sim_below(&fault.chance, START); /* it was pulled out of the socket */
    }
    leave(card, card->block + before, card->from + (size_t)before * DRIP_BLOCK_BYTES, kind);
    fault.block = card->block + before;
    fault.fired = 1;
    fault.left = fault.for_ops;
    card->absent = fault.kind == ABSENT;
    card->busy = 0;
    return code_of(fault.kind);
}

static int poll(void *context)
{
    sim_card_t *card = context;
    uint32_t count = card->count;
    int writes = card->busy == 2;
    int is_it = writes && fault.at > fault.seen && fault.at <= fault.seen + count;

    if (is_down() && fault.kind == PERSIST) {
        fault.left--;
        card->busy = 0;
        return DRIP_ERR_IO;
    }
    if (writes && ((is_down() && fault.kind == PROTECT) ||
                   (fault.fired && fault.kind == STUCK && fault.block >= card->block &&
                    fault.block < card->block + count))) {
        card->busy = 0;
        return code_of(fault.kind);
    }
    if (is_it && fault.kind == TIMED_OUT && fault.polls++ < 30) {
        card->now_us += 100000;
        return DRIP_ERR_BUSY;
    }
    if (is_it && !fault.fired) {
        fault.polls = 0;
        return break_write(card, fault.at - fault.seen - 1);
    }
    fault.seen += writes ? count : 0;
    return fault.poll(context);
}

static int start_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    if (fault.kind == START && !fault.fired && fault.at > fault.seen &&
        fault.at <= fault.seen + count) {
        fault.fired = 1;
        return DRIP_ERR_IO;
    }
    return fault.write(context, block, data, count);
}

/* ---------------------------------------------------------------- what must be there */

static void tell(const sim_record_t *record)
{
    uint32_t i;

    for (i = 0; i < gaps && told[i].seq != record->header.seq; i++) {
    }
    MUST(i < GAPS, "too many GAP records");
    if (i == gaps) {
        gaps++;
        told[i].seq = record->header.seq;
        memcpy(&told[i].gap, record->payload, sizeof(told[i].gap));
    }
    MUST(memcmp(&told[i].gap, record->payload, sizeof(told[i].gap)) == 0, "a GAP record changes");
    told[i].seen = 1;
}

static void look(void *context, const sim_record_t *record)
{
    uint32_t token = (uint32_t)record->header.raw_score;
    uint64_t seq = record->header.seq;
    uint8_t expected[4096];
    int acknowledging = context != NULL;

    MUST(acknowledging || seq > last_seq || (evicting && record->segment != last_segment),
         "record %u is out of order", (unsigned)seq);
    last_seq = seq;
    last_segment = record->segment;
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT == DRIP_RECORD_KIND_GAP) {
        tell(record);
        return;
    }
    MUST(token > 0 && token <= tokens && entries[token].seq == seq &&
             entries[token].size == record->header.payload_bytes,
         "record %u is invented", (unsigned)seq);
    sim_payload(token, expected, entries[token].size);
    MUST(memcmp(expected, record->payload, entries[token].size) == 0, "frame %u differs", token);
    /* What an eviction has taken over to a place that then cannot be written stays there, too. */
    MUST(acknowledging || !entries[token].seen || (evicting && fault.kind == STUCK),
         "frame %u is there twice", token);
    entries[token].seen = 1;
    entries[token].read |= acknowledging;
}

static void read_all(drip_log_t *log)
{
    uint32_t i;

    for (i = 0; i <= tokens; i++) {
        entries[i].seen = 0;
    }
    for (i = 0; i < gaps; i++) {
        told[i].seen = 0;
    }
    last_seq = 0;
    last_segment = 0xffffffff;
    sim_read_all(log, look, NULL);
}

/* Sums of what GAP records say: of all that were ever read, or where an eviction merges them, of those there. */
static void add_up(drip_record_gap_t *sum)
{
    uint32_t i;

    *sum = the_log.gap;
    for (i = 0; i < gaps; i++) {
        if (told[i].seen || !evicting) {
            sum->full += told[i].gap.full;
            sum->card += told[i].gap.card;
            sum->damaged += told[i].gap.damaged;
            sum->evicted += told[i].gap.evicted;
        }
    }
}

/* The log is usable: whatever was durable is there, or the host holds it, or it was evicted and counted. */
static void check(drip_log_t *log)
{
    drip_record_gap_t sum;
    uint32_t missing = 0, lost = 0, unsure = 0;
    uint32_t i;

    read_all(log);
    add_up(&sum);
    for (i = 1; i <= tokens; i++) {
        unsure += entries[i].state == UNSURE;
        lost += entries[i].state == UNSURE && !entries[i].seen && !entries[i].held;
        if (entries[i].state != DURABLE || entries[i].seen || entries[i].held) {
            continue;
        }
        MUST(evicting, "frame %u, record %u, was durable and is lost", i, (unsigned)entries[i].seq);
        missing++;
    }
    /* A segment that was closed for a block that could not be written goes on after a restart. */
    MUST(evicting || fault.kind == STUCK || drip_log_durable(log) >= furthest,
         "the durable end went back");
    furthest = drip_log_durable(log);
    if (!evicting || !acknowledges) {
        MUST(missing + refused <= sum.evicted + (cuts > 0 ? refused : 0),
             "%u frames were evicted, %u refused, and the card speaks of %u", missing, refused,
             sum.evicted);
    }
    if (cuts == 0) {
        MUST(missing + refused <= drip_log_evicted(log), "%u of %u evicted are not counted",
             missing + refused - drip_log_evicted(log), missing + refused);
        MUST(evicting || (lost <= drip_log_lost(log) && drip_log_lost(log) <= unsure),
             "%u frames are lost, %u unsure, %u counted", lost, unsure, drip_log_lost(log));
        MUST(evicting || sum.full >= full, "%u frames were refused by a full log, %u told", full,
             sum.full);
        MUST(evicting || sum.card >= lost, "%u frames are lost, %u told", lost, sum.card);
        /* Nothing is told twice, but frames in flight where a part of what failed was written: a mount that
         * finds one behind them finds them missing. */
        MUST(evicting || sum.full == full, "%u refused by a full log, %u told", full, sum.full);
        if (fault.kind <= WHOLE || fault.kind == START || fault.kind == PROTECT) {
            MUST(evicting || sum.card <= unsure, "%u were pending, %u told", unsure, sum.card);
        }
        MUST(!evicting || acknowledges || fault.kind == STUCK ||
                 sum.evicted <= missing + refused + lost,
             "%u evicted or refused, %u told", missing + refused, sum.evicted);
    }
}

static void settle(uint8_t state)
{
    for (; waiting <= tokens; waiting++) {
        entries[waiting].state = state;
    }
}

/* As the device does, a second later, until the card answers. */
static void mount_again(sim_card_t *card, const drip_log_config_t *config)
{
    uint32_t tries = 0;

    settle(UNSURE);
    while (!usable()) {
        int down = is_down();

        MUST(++tries < MOUNTS, "the card is never mounted again: %u", the_log.card);
        mounts++;
        card->now_us += 1000000;
        if (fault.kind == ABSENT || fault.kind == PROTECT) {
            fault.left -= fault.left > 0;
            card->absent &= fault.left > 0;
        }
        (void)drip_log_mount(&the_log, &card->port, config, 0, 0);
        sim_drive(&the_log);
        MUST(usable() || down || fault.kind == STUCK, "state %u on a card that is back",
             the_log.card);
    }
    check(&the_log);
}

static int has_failed;

/* After every operation: is the log at rest, or has the card failed? */
static void go_on(sim_card_t *card, const drip_log_config_t *config, int cut)
{
    if (usable()) {
        if (drip_log_pending(&the_log) == 0) {
            settle(DURABLE);
        }
        return;
    }
    MUST(fault.fired, "state %u without a fault", the_log.card);
    MUST(the_log.card == (fault.kind == ABSENT    ? DRIP_CARD_ABSENT
                          : fault.kind == PROTECT ? DRIP_CARD_PROTECTED
                                                  : DRIP_CARD_ERROR),
         "state %u is reported", the_log.card);
    if (cut && !has_failed) {
        cuts++;
        memset(&the_log, 0, sizeof(the_log));
    }
    has_failed = 1;
    mount_again(card, config);
}

/* ---------------------------------------------------------------- workload */

static int64_t append(uint32_t size, uint16_t percentile)
{
    uint32_t token = tokens + 1;
    int64_t seq;

    MUST(token < MOST, "too many frames");
    /* Known before the log drives on: a read may find it at once. */
    seq = sim_append(&the_log, token, size, percentile, token % 3);
    if (seq > 0) {
        MUST((uint64_t)seq > newest, "number %u was given out before", (unsigned)seq);
        newest = (uint64_t)seq;
        tokens = token;
        memset(&entries[token], 0, sizeof(entries[token]));
        entries[token].seq = newest;
        entries[token].size = size;
    }
    MUST(seq >= 0 || seq == DRIP_ERR_FULL || (seq == DRIP_ERR_NO_CARD && !usable()), "append: %d",
         (int)seq);
    refused += seq == 0;
    full += seq == DRIP_ERR_FULL;
    return seq;
}

static int acknowledge(void)
{
    int result;
    int visiting = 1;
    uint32_t i;

    for (i = 1; i <= tokens; i++) {
        entries[i].read = 0;
    }
    result = sim_ack_oldest(&the_log, look, &visiting);
    for (i = 1; i <= tokens && result == DRIP_ERR_OK; i++) {
        entries[i].held |= entries[i].read;
    }
    return result;
}

static void operate(sim_card_t *card, const drip_log_config_t *config, uint64_t *chance)
{
    static const uint32_t SIZES[8] = {1, 64, 448, 449, 700, 1500, 1024, 3000};
    uint32_t action = sim_below(chance, 100);
    uint32_t size = SIZES[sim_below(chance, 8)];
    uint16_t percentile = (uint16_t)(sim_random(chance) & 0xffff);
    uint8_t checkpoint[40];

    if (action < 60) {
        (void)append(size, percentile);
    } else if (action < 80) {
        (void)drip_log_sync(&the_log);
        sim_drive(&the_log);
    } else if (action < 90) {
        if (acknowledges && drip_log_acked(&the_log) < drip_log_durable(&the_log)) {
            (void)acknowledge();
        }
    } else if (action < 97) {
        memset(checkpoint, (int)action, sizeof(checkpoint));
        (void)drip_log_checkpoint_set(&the_log, checkpoint, sizeof(checkpoint));
        (void)drip_log_checkpoint_write(&the_log);
        sim_drive(&the_log);
    } else {
        /* The host asks for another look at the card. */
        settle(UNSURE);
        (void)drip_log_mount(&the_log, &card->port, config, 0, 0);
        sim_drive(&the_log);
    }
    card->now_us += sim_below(chance, 2000000);
    sim_drive(&the_log);
}

static void choose(uint64_t *chance, uint32_t mode, drip_log_config_t *config, uint32_t *segment,
                   uint32_t *blocks)
{
    memset(config, 0, sizeof(*config));
    config->commit_ms = sim_below(chance, 3) == 0 ? 1000 : 1000000;
    config->commit_bytes = sim_below(chance, 3) * 256;
    config->full_mode = (uint8_t)mode;
    config->class_floor = (uint8_t)sim_below(chance, 3);
    *segment = 8u << sim_below(chance, 4);
    *blocks = *segment * (3 + sim_below(chance, 3));
    *blocks += mode == DRIP_FULL_STOP ? 60 : 0;
    *blocks = (*blocks > 160 ? 160 : *blocks) < *segment * 3 ? *segment * 3 : *blocks;
    evicting = mode == DRIP_FULL_EVICT;
    acknowledges = !evicting || sim_below(chance, 2) == 0;
}

/* Returns the block writes of the workload. */
static uint32_t run(enum fault kind, uint64_t seed, uint32_t mode, uint32_t at, int cut)
{
    static char repeat[160];
    drip_log_config_t config;
    uint64_t chance = seed * 3 + mode;
    uint32_t segment, blocks, i;
    sim_card_t card;
    drip_log_t other;

    snprintf(repeat, sizeof(repeat), "write_faults %s %llu 1 1 %u (mode %u, %s)", NAMES[kind],
             (unsigned long long)seed, at, mode, cut ? "cut" : "running on");
    sim_repeat = repeat;
    choose(&chance, mode, &config, &segment, &blocks);
    sim_card_init(&card, blocks + 9);
    sim_payload((uint32_t)seed * 7 + 1, card.data, card.blocks * DRIP_BLOCK_BYTES);
    sim_format(&card, 4, segment, &chance);
    memset(&fault, 0, sizeof(fault));
    fault.kind = kind;
    fault.chance = seed * 1000003 + at;
    fault.for_ops = (kind == PERSIST || kind == ABSENT || kind == PROTECT)
                        ? 1 + sim_below(&fault.chance, 20)
                        : 0;
    fault.poll = card.port.card_poll;
    fault.write = card.port.card_write;
    card.port.card_poll = poll;
    card.port.card_write = start_write;
    tokens = gaps = mounts = refused = full = cuts = 0;
    newest = furthest = 0;
    has_failed = 0;
    waiting = 1;
    memset(&the_log, 0, sizeof(the_log));
    fault.at = at; /* the mount's own superblock is the first */
    for (i = 0; i < OPERATIONS; i++) {
        if (i == 0) {
            (void)drip_log_mount(&the_log, &card.port, &config, 0, 0);
            sim_drive(&the_log);
        } else {
            operate(&card, &config, &chance);
        }
        go_on(&card, &config, cut);
    }
    /* Three tries in each segment that meets a block that is broken, then it goes around. */
    MUST(fault.kind != STUCK ||
             mounts <= 3 * (2 + the_log.next_segment / the_log.super.segment_count),
         "%u mounts, and the ring turned %u times", mounts,
         the_log.next_segment / the_log.super.segment_count);
    /* The card is as it should be again; what the log still has to tell is told. */
    fault.block = 0xffffffff;
    fault.left = 0;
    config.full_mode = evicting ? DRIP_FULL_EVICT : DRIP_FULL_OVERWRITE_ACKED;
    drip_log_configure(&the_log, &config);
    for (i = 0; append(300, 0xffff) <= 0; i++) {
        MUST(i < 100, "recording never goes on");
        go_on(&card, &config, cut);
        if (the_log.card == DRIP_CARD_FULL) {
            (void)acknowledge();
        }
    }
    for (i = 0; i < 3; i++) {
        (void)drip_log_sync(&the_log);
        sim_drive(&the_log);
        go_on(&card, &config, cut);
    }
    MUST(drip_log_pending(&the_log) == 0, "pending in the end");
    check(&the_log);
    lost_frames += drip_log_lost(&the_log);
    evictions += cut ? 0 : drip_log_evicted(&the_log) - refused;
    wraps += the_log.next_segment > the_log.super.segment_count;
    for (i = 1; i <= tokens; i++) {
        records++;
        unsure_frames += entries[i].state == UNSURE && entries[i].seen;
    }
    fault.at = 0;
    fault.block = 0xffffffff;
    sim_mount(&other, &card, &config);
    MUST(other.card == DRIP_CARD_READY, "state %u in the end", other.card);
    {
        drip_record_gap_t gap = the_log.gap;

        other.gap = gap; /* what waits in memory counts as told */
        other.lost = the_log.lost;
        other.evicted = the_log.evicted;
        the_log = other;
        check(&the_log);
    }
    faults_fired += fault.fired;
    runs++;
    i = fault.seen;
    sim_card_free(&card);
    return i;
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t seeds = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    uint32_t every = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 1;
    uint32_t only = argc > 5 ? (uint32_t)strtoul(argv[5], NULL, 10) : 0;
    uint64_t total = 0, seed;
    uint32_t mode, at, most;
    int kind = 0;

    while (kind < FAULTS && (argc < 2 || strcmp(argv[1], NAMES[kind]) != 0)) {
        kind++;
    }
    if (kind == FAULTS || every == 0) {
        fprintf(stderr, "usage: write_faults FAULT FIRST_SEED SEEDS [EVERY [AT]]\n");
        return 2;
    }
    for (seed = first; seed < first + seeds; seed++) {
        for (mode = 0; mode < MODES; mode++) {
            most = run((enum fault)kind, seed, mode, 0, 0);
            total += most;
            for (at = only > 0 ? only : 1 + (uint32_t)(seed % every); at <= most; at += every) {
                (void)run((enum fault)kind, seed, mode, at, 0);
                (void)run((enum fault)kind, seed, mode, at, 1);
                if (only > 0) {
                    break;
                }
            }
        }
    }
    printf("%s: %llu runs, %llu faults, %llu writes, %llu frames, %llu lost, %llu in doubt yet "
           "stored, "
           "%llu evicted, %llu wrapped\n",
           NAMES[kind], (unsigned long long)runs, (unsigned long long)faults_fired,
           (unsigned long long)total, (unsigned long long)records, (unsigned long long)lost_frames,
           (unsigned long long)unsure_frames, (unsigned long long)evictions,
           (unsigned long long)wraps);
    return 0;
}
