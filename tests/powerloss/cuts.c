/* Power fails at every block write of a mixed workload, and what the log has promised must hold.
 *
 * Usage: cuts MODEL FIRST_SEED SEEDS [CUT]   MODEL: torn, lost, unit or again
 *
 * torn   the block being written is old, new, partly new, or noise
 * lost   of the writes since the last sync any may be missing, in any order
 * unit   any block of the erase unit being written is garbled or unreadable
 * again  as torn, and the recovery is cut in turn at each of its writes
 *
 * Prints the number of cuts. A failure prints the command that repeats it. */
#include "sim.h"

enum {
    OPERATIONS = 90,
    EVICTING_OPERATIONS = 180,
    PLACES = 24,
    MAX_WRITES = 4000,
    MAX_GIVEN = 4000,
    SEQS = 1 << 20,
    NEVER = 0x7fffffff,
};

enum model { TORN, LOST, UNIT, AGAIN };

typedef struct {
    uint32_t since; /* block writes */
    uint32_t segment;
    uint32_t first_block; /* on the card */
    uint32_t last_block;
} place_t;

/* A record that was accepted, and after how many block writes it was given and durable. */
typedef struct {
    uint64_t seq;
    uint32_t token;
    uint32_t size;
    uint32_t given_at;
    uint32_t durable_at;
    uint32_t evicted_at;    /* it may be gone from then on */
    place_t places[PLACES]; /* eviction moves it */
    uint32_t moves;
    uint8_t seen;
} given_t;

typedef struct {
    given_t *given;
    uint32_t count;
    uint32_t acked_at[MAX_WRITES]; /* first segment not acknowledged, by block writes */
    uint32_t sure_at[MAX_WRITES];  /* the same as a superblock says: the others may be forgotten */
    uint32_t noted;                /* of these */
    uint32_t acked;
    uint32_t sure;
    uint64_t token;
    uint64_t refused;            /* frames of the workload */
    uint32_t full_at[MAX_GIVEN]; /* block writes when a full log refused a frame */
    uint32_t fulls;
    uint32_t given_fulls; /* of these, by the workload */
    int flat; /* all rank alike: none is refused, and what GAP records count was on the card */
} promise_t;

typedef struct {
    uint32_t unit_blocks;
    uint32_t segment_blocks;
    uint32_t blocks;
    drip_log_config_t config;
} setup_t;

static uint32_t *index_of; /* by sequence number, + 1 */
static uint64_t cuts_done;
static uint64_t lost_in_unit;
static uint64_t cuts_with_loss;
static uint64_t cuts_untold;   /* of these, nothing on the card says that something is missing */
static uint64_t lost_constant; /* frames of zeros */
static uint64_t alarms;        /* cuts after which the mount has found damage */
static uint64_t evictions;
static uint64_t refused;         /* frames that rank too low, never given */
static uint32_t recovery_evicts; /* since the cut */
static uint32_t recovery_refused;
static int may_repeat;
static drip_log_t the_log;

static void forget(promise_t *promise, uint32_t count)
{
    while (promise->count > count) {
        index_of[promise->given[--promise->count].seq] = 0;
    }
}

static void give(promise_t *promise, uint64_t seq, uint32_t token, uint32_t size, uint32_t at)
{
    given_t *given = &promise->given[promise->count];

    MUST(seq < SEQS && promise->count < MAX_GIVEN, "the workload is too long");
    if (index_of[seq] != 0 && may_repeat) {
        given_t *earlier = &promise->given[index_of[seq] - 1];

        /* Neither the record nor the block that reserved its number has reached the card. */
        MUST(!earlier->seen && earlier->durable_at == NEVER, "number %u is in use", (unsigned)seq);
        earlier->seq = 0;
        index_of[seq] = 0;
    }
    MUST(index_of[seq] == 0, "sequence number %u was given out before", (unsigned)seq);
    memset(given, 0, sizeof(*given));
    given->seq = seq;
    given->token = token;
    given->size = size;
    given->given_at = at;
    given->durable_at = NEVER;
    given->evicted_at = NEVER;
    index_of[seq] = ++promise->count;
}

/* ---------------------------------------------------------------- checking */

typedef struct {
    promise_t *promise;
    const drip_log_t *log;
    uint32_t at; /* block writes that may have happened */
    uint64_t last_seq;
    uint32_t last_segment;
    uint64_t evicted; /* as GAP records say */
    int locate;
    uint64_t full;
} look_t;

static int evicts(const drip_log_t *log)
{
    return log->config.full_mode == DRIP_FULL_EVICT;
}

static void locate(look_t *at, given_t *given, const sim_record_t *record)
{
    uint32_t slot = record->segment % at->log->super.segment_count;
    uint32_t base = at->log->super.data_block + slot * at->log->super.segment_blocks;
    place_t *place = &given->places[given->moves];

    if (given->moves > 0 && given->places[given->moves - 1].segment == record->segment) {
        return;
    }
    MUST(given->moves < PLACES, "record %u moves too often", (unsigned)given->seq);
    given->moves++;
    place->since = (uint32_t)at->locate - 1;
    place->segment = record->segment;
    place->first_block = base + record->first / DRIP_BLOCK_BYTES;
    place->last_block = base + record->last / DRIP_BLOCK_BYTES;
}

static void look(void *context, const sim_record_t *record)
{
    look_t *at = context;
    uint64_t seq = record->header.seq;
    uint8_t expected[4096];
    given_t *given;

    MUST(seq > at->last_seq || (evicts(at->log) && record->segment != at->last_segment),
         "record %u is out of order", (unsigned)seq);
    at->last_seq = seq;
    at->last_segment = record->segment;
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT == DRIP_RECORD_KIND_GAP) {
        drip_record_gap_t gap;

        memcpy(&gap, record->payload, sizeof(gap));
        at->evicted += gap.evicted;
        at->full += gap.full;
    }
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT != DRIP_RECORD_KIND_FRAME) {
        return;
    }
    MUST(seq < SEQS && index_of[seq] != 0, "record %u is invented", (unsigned)seq);
    given = &at->promise->given[index_of[seq] - 1];
    MUST(given->given_at <= at->at, "record %u comes from the future", (unsigned)seq);
    MUST(given->size == record->header.payload_bytes &&
             given->token == (uint32_t)record->header.raw_score,
         "record %u is another", (unsigned)seq);
    sim_payload(given->token, expected, given->size);
    MUST(memcmp(expected, record->payload, given->size) == 0, "frame of record %u differs",
         (unsigned)seq);
    MUST(!given->seen, "record %u is there twice", (unsigned)seq);
    given->seen = 1;
    if (at->locate) {
        locate(at, given, record);
    }
}

/* `moved`: 0, or 1 + block writes since which records may have moved. Returns the evicted records. */
static uint64_t look_at_all(drip_log_t *log, promise_t *promise, uint32_t at, uint32_t moved)
{
    look_t context = {promise, log, at, 0, NEVER, 0, (int)moved, log->gap.full};
    uint32_t fulls = 0;
    uint32_t i;

    for (i = 0; i < promise->count; i++) {
        promise->given[i].seen = 0;
    }
    sim_read_all(log, look, &context);
    while (fulls < promise->fulls && promise->full_at[fulls] <= at) {
        fulls++;
    }
    fulls += promise->fulls - (fulls < promise->given_fulls ? promise->given_fulls : fulls);
    MUST(context.full <= fulls, "%u frames were refused, and the card speaks of %u", fulls,
         (unsigned)context.full);
    return context.evicted;
}

/* Was it where power failed? Where did it lie then? */
static int in_unit(const given_t *given, uint32_t first, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < given->moves; i++) {
        if (given->places[i].last_block >= first && given->places[i].first_block < first + count) {
            return 1;
        }
    }
    return 0;
}

static uint32_t segment_at(const given_t *given, uint32_t at)
{
    uint32_t i = given->moves;

    while (i > 1 && given->places[i - 1].since > at) {
        i--;
    }
    return i > 0 ? given->places[i - 1].segment : NEVER;
}

typedef struct {
    uint32_t of[MAX_WRITES]; /* records by segment */
    uint64_t told;           /* damage and missing records, as GAP records say */
} count_t;

static void tally(void *context, const sim_record_t *record)
{
    count_t *count = context;
    drip_record_gap_t gap;

    MUST(record->segment < MAX_WRITES, "segment %u", record->segment);
    count->of[record->segment]++;
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT == DRIP_RECORD_KIND_GAP) {
        memcpy(&gap, record->payload, sizeof(gap));
        count->told += gap.damaged + gap.card;
    }
}

/* Does the card say that something is missing: a GAP record, or a header that counts more records in the
 * segment before it, or a segment without a header? */
static int is_told(drip_log_t *log)
{
    static count_t count;
    const sim_card_t *card = log->port->context;
    uint32_t bytes = log->super.segment_blocks * DRIP_BLOCK_BYTES;
    uint32_t segment = (uint32_t)(drip_log_tail(log) / bytes);
    int told = 0;

    memset(&count, 0, sizeof(count));
    sim_read_all(log, tally, &count);
    for (; (uint64_t)segment * bytes < drip_log_durable(log); segment++) {
        uint32_t slot = segment % log->super.segment_count;
        uint32_t block = log->super.data_block + slot * log->super.segment_blocks;
        drip_segment_header_t header;

        memcpy(&header, card->data + (size_t)block * DRIP_BLOCK_BYTES, sizeof(header));
        if (card->unreadable[block] || header.magic != DRIP_SEGMENT_MAGIC ||
            header.segment != segment || header.crc != drip_crc32(0, &header, sizeof(header) - 4)) {
            told = 1;
        } else if (segment > 0 && header.previous_records > count.of[segment - 1] &&
                   (uint64_t)(segment - 1) * bytes >= drip_log_tail(log)) {
            told = 1;
        }
    }
    /* The next header will say so. */
    told |= log->open && log->records > count.of[log->next_segment - 1];
    return told || count.told > 0;
}

/* What must be there after `durable` block writes; blocks first..first+count-1 may be lost. */
static void check(drip_log_t *log, promise_t *promise, uint32_t at, uint32_t durable,
                  uint32_t first, uint32_t count)
{
    uint32_t bytes = log->super.segment_blocks * DRIP_BLOCK_BYTES;
    uint32_t tail = (uint32_t)(drip_log_tail(log) / bytes);
    uint32_t acked = (uint32_t)(drip_log_acked(log) / bytes);
    uint64_t evicted = look_at_all(log, promise, at, 0);
    uint64_t missing = 0;
    uint64_t absent = promise->refused + recovery_refused;
    uint32_t i;

    if (count == 0) {
        MUST(acked >= promise->sure_at[durable], "an acknowledgement is forgotten");
    }
    for (i = 0; i < promise->count; i++) {
        const given_t *given = &promise->given[i];

        absent += !given->seen && given->given_at <= at;
        if (given->seen || given->durable_at > durable) {
            continue;
        }
        if (count > 0 && in_unit(given, first, count)) {
            if (given->evicted_at > at && (recovery_evicts == 0 || given->durable_at == 0) &&
                (segment_at(given, at) >= tail || segment_at(given, at) >= promise->acked_at[at])) {
                lost_in_unit++;
                lost_constant += given->token % 7 == 0;
            }
            continue;
        }
        if (given->evicted_at <= at || (recovery_evicts > 0 && given->durable_at > 0)) {
            missing++;
            continue;
        }
        /* Blocks of a segment that is written over may be there before its header is. */
        MUST(segment_at(given, at) < tail || may_repeat, "record %u is lost, it was durable",
             (unsigned)given->seq);
        MUST(segment_at(given, at) < promise->acked_at[at],
             "record %u is overwritten, never acknowledged", (unsigned)given->seq);
    }
    MUST(evicted <= absent || count > 0, "%u records were evicted, and the card speaks of %u",
         (unsigned)absent, (unsigned)evicted);
    /* Acknowledged segments take their GAP records with them. */
    MUST(missing <= evicted || promise->acked_at[at] > 0 || count > 0,
         "%u records were evicted silently", (unsigned)(missing - evicted));
}

/* `before`: block writes when the last operation began. */
static void note_durable(drip_log_t *log, promise_t *promise, uint32_t before, uint32_t at)
{
    uint32_t i;

    look_at_all(log, promise, NEVER, before + 1);
    for (i = promise->count; i-- > 0;) {
        given_t *given = &promise->given[i];

        if (given->durable_at == NEVER && given->seen) {
            given->durable_at = at;
        }
        if (!given->seen && evicts(log) && given->evicted_at == NEVER) {
            given->evicted_at = before;
        }
    }
}

/* Writes up to here count with what was acknowledged when they were made. */
static void note_acked(const drip_log_t *log, promise_t *promise, uint32_t written)
{
    for (; promise->noted < written && promise->noted < MAX_WRITES - 1; promise->noted++) {
        promise->acked_at[promise->noted] = promise->acked;
        promise->sure_at[promise->noted] = promise->sure;
    }
    promise->acked = log->super.acked_segment;
    promise->sure = log->acked_durable;
    promise->acked_at[promise->noted] = promise->acked;
    promise->sure_at[promise->noted] = promise->sure;
}

/* Returns 1 when the log has taken it, 0 when it ranks too low. */
static int append(drip_log_t *log, promise_t *promise, uint32_t size, sim_card_t *card)
{
    uint16_t percentile =
        promise->flat ? 30000 : (uint16_t)((uint32_t)(promise->token * 40503u) & 0xffff);
    uint32_t token = (uint32_t)++promise->token;
    uint32_t at = card->written;
    int64_t seq = sim_append(log, token, size, percentile, token % 3);

    while (seq == DRIP_ERR_FULL) {
        MUST(promise->fulls < MAX_GIVEN, "the log is full too often");
        promise->full_at[promise->fulls++] = at;
        MUST(sim_ack_oldest(log, NULL, NULL) == DRIP_ERR_OK,
             "the oldest segment cannot be acknowledged");
        if (card->epoch > 0) {
            note_acked(log, promise, card->written);
        }
        seq = sim_append(log, token, size, percentile, token % 3);
    }
    if (seq == 0 && evicts(log)) {
        refused++;
        return 0;
    }
    MUST(seq > 0, "append: %d", (int)seq);
    give(promise, (uint64_t)seq, token, size, at);
    return 1;
}

/* Mounts the card after a cut, checks, goes on recording, checks again, twice. */
static void recover(sim_card_t *card, promise_t *promise, const setup_t *setup, uint32_t at,
                    uint32_t durable, uint32_t first, uint32_t count)
{
    drip_log_t *log = &the_log;
    uint64_t lost;
    uint64_t refused_before = refused;
    uint32_t tries;
    uint64_t constant;
    uint32_t i;

    recovery_evicts = 0;
    recovery_refused = 0;
    /* Power may fail again before anything is recorded: that must not hide what is lost. */
    for (i = 0; i <= (count > 0 ? at % 3 : 0); i++) {
        sim_mount(log, card, &setup->config);
        MUST(log->card == DRIP_CARD_READY, "state %u after the mount", log->card);
    }
    alarms += log->damaged > 0 || log->gap.card > 0;
    check(log, promise, at, durable, first, count);
    for (i = 0; i < 2; i++) {
        for (tries = 0; !append(log, promise, 300 + 100 * i, card); tries++) {
            MUST(tries < 100, "always refused");
        }
        MUST(drip_log_sync(log) == DRIP_ERR_OK, "sync");
        sim_drive(log);
        MUST(drip_log_pending(log) == 0, "pending");
        promise->given[promise->count - 1].durable_at = 0;
        promise->given[promise->count - 1].given_at = 0;
    }
    recovery_refused = (uint32_t)(refused - refused_before);
    recovery_evicts = log->evicted - recovery_refused;
    /* What it acknowledged to make room is acknowledged from now on. */
    i = promise->acked_at[at];
    if (promise->acked_at[at] < log->super.acked_segment) {
        promise->acked_at[at] = log->super.acked_segment;
    }
    lost = lost_in_unit;
    constant = lost_constant;
    check(log, promise, at, durable, first, count);
    if (lost_in_unit > lost) {
        cuts_with_loss++;
        if (!is_told(log)) {
            /* The end of a frame of zeros may be what lay there before: then it looks unfinished. */
            MUST(lost_in_unit - lost == lost_constant - constant, "a loss is not told");
            cuts_untold++;
        }
    }
    card->now_us += 1000;
    sim_mount(log, card, &setup->config);
    MUST(log->card == DRIP_CARD_READY, "state %u after the second mount", log->card);
    check(log, promise, at, durable, first, count);
    promise->acked_at[at] = i;
}

/* ---------------------------------------------------------------- workload */

static void workload(sim_card_t *card, promise_t *promise, const setup_t *setup, uint64_t *chance)
{
    drip_log_t *log = &the_log;
    uint32_t largest = (setup->segment_blocks - 1) * DRIP_BLOCK_BYTES - 64;
    uint32_t sizes[9] = {1, 64, 440, 448, 449, 700, 1500, 1024, 3000};
    int evicting = setup->config.full_mode == DRIP_FULL_EVICT;
    uint32_t operations = evicting ? EVICTING_OPERATIONS : OPERATIONS;
    uint32_t ack = evicting && sim_below(chance, 4) > 0 ? 78 : 97;
    uint32_t before = 0;
    uint64_t refused_before = refused;
    uint32_t start;
    uint32_t i;

    sim_mount(log, card, &setup->config);
    card->epoch = 1;
    for (i = 0; i < operations; i++) {
        uint32_t segments = log->next_segment;

        uint32_t action = sim_below(chance, 100);
        uint32_t size = sizes[sim_below(chance, 9)];

        start = card->written;
        if (action < 55) {
            append(log, promise, size < largest ? size : largest, card);
        } else if (action < 78) {
            MUST(drip_log_sync(log) == DRIP_ERR_OK, "sync");
            sim_drive(log);
        } else if (action < ack) {
            if (drip_log_acked(log) < drip_log_durable(log)) {
                MUST(sim_ack_oldest(log, NULL, NULL) == DRIP_ERR_OK, "acknowledge");
            }
        } else if (action >= 97) {
            evictions += log->evicted;
            sim_mount(log, card, &setup->config);
        }
        card->now_us += sim_below(chance, 2000000); /* a superblock every ten operations */
        note_acked(log, promise, card->written);
        if (evicting && log->next_segment != segments) {
            look_at_all(log, promise, NEVER, start + 1);
        }
        if (drip_log_pending(log) == 0) {
            note_durable(log, promise, before, card->written);
            before = card->written;
            card->epoch++;
        }
    }
    (void)drip_log_sync(log);
    sim_drive(log);
    note_acked(log, promise, card->written);
    note_durable(log, promise, before, card->written);
    evictions += log->evicted;
    evictions -= refused - refused_before;
    promise->refused = refused - refused_before;
    promise->given_fulls = promise->fulls;
}

static void tear(uint8_t *to, const uint8_t *now, uint32_t kind, uint64_t *chance)
{
    uint32_t where = 1 + sim_below(chance, DRIP_BLOCK_BYTES - 1);
    uint32_t i;

    if (kind == 1) {
        memcpy(to, now, where);
    } else if (kind == 2) {
        memcpy(to + where, now + where, DRIP_BLOCK_BYTES - where);
    } else if (kind == 3) {
        for (i = 0; i < DRIP_BLOCK_BYTES; i++) {
            to[i] = (uint8_t)sim_random(chance);
        }
    }
}

static uint8_t *block_of(const sim_card_t *card, uint32_t block)
{
    return card->data + (size_t)block * DRIP_BLOCK_BYTES;
}

static void garble_unit(sim_card_t *card, uint32_t first, uint32_t count, uint64_t *chance)
{
    uint32_t harm = sim_below(chance, 3);
    uint32_t i;

    for (i = first; i < first + count && i < card->blocks; i++) {
        uint32_t kind = harm == 0 ? 1 + sim_below(chance, 2) : sim_below(chance, 1 + harm * 3);

        if (kind == 1) {
            tear(block_of(card, i), NULL, 3, chance);
        } else if (kind == 2) {
            card->unreadable[i] = 1;
        }
    }
}

/* Some of the writes since the last sync, in another order. */
static void lose(sim_card_t *card, const sim_write_t *writes, uint32_t count, uint64_t *chance)
{
    uint32_t keep = sim_below(chance, 101);
    uint32_t last = sim_below(chance, 2) ? count : sim_below(chance, count + 1);
    uint32_t i;

    for (i = 0; i < count; i++) {
        uint32_t other = sim_below(chance, 4) ? i : sim_below(chance, count);

        if (other < last || sim_below(chance, 100) < keep) {
            memcpy(block_of(card, writes[other].block), writes[other].data, DRIP_BLOCK_BYTES);
        }
    }
}

/* ---------------------------------------------------------------- cuts */

static void copy_card(sim_card_t *to, const uint8_t *data)
{
    memcpy(to->data, data, (size_t)to->blocks * DRIP_BLOCK_BYTES);
    memset(to->unreadable, 0, to->blocks);
    to->written = 0;
    to->busy = 0;
    to->now_us = 0;
}

static char repeat[160];

static void say(const char *model, uint64_t seed, uint32_t cut)
{
    snprintf(repeat, sizeof(repeat), "cuts %s %llu 1 %u", model, (unsigned long long)seed, cut);
    sim_repeat = repeat;
}

/* Cuts the recovery from a cut at each of its writes. */
static void cut_recovery(sim_card_t *card, promise_t *promise, const setup_t *setup, uint32_t at,
                         uint64_t *chance)
{
    sim_card_t other;
    size_t size = (size_t)card->blocks * DRIP_BLOCK_BYTES;
    uint8_t *now = malloc(size);
    uint32_t given = promise->count;
    uint32_t total;
    uint32_t i;

    memcpy(now, card->data, size);
    sim_card_init(&other, card->blocks);
    other.unreadable = calloc(card->blocks, 1);
    card->writes = malloc(MAX_WRITES * sizeof(sim_write_t));
    card->room = MAX_WRITES;
    recover(card, promise, setup, at, at, 0, 0);
    total = card->written;
    /* What the recovery made may be there or not: it is not yet durable while it runs. */
    for (i = given; i < promise->count; i++) {
        promise->given[i].durable_at = NEVER;
    }
    for (i = 0; i < total; i++) {
        uint32_t acked = promise->acked_at[at];
        uint32_t made = promise->count;

        copy_card(&other, now);
        tear(block_of(&other, card->writes[i].block), card->writes[i].data, sim_below(chance, 4),
             chance);
        promise->acked_at[at] = NEVER; /* it may have made room */
        {
            drip_log_t *log = &the_log;

            sim_mount(log, &other, &setup->config);
            MUST(log->card == DRIP_CARD_READY, "state %u", log->card);
            look_at_all(log, promise, NEVER, 0);
        }
        promise->acked_at[at] = 0;
        recover(&other, promise, setup, at, 0, 0, 0);
        promise->acked_at[at] = acked;
        forget(promise, made);
        memcpy(now + (size_t)card->writes[i].block * DRIP_BLOCK_BYTES, card->writes[i].data,
               DRIP_BLOCK_BYTES);
        cuts_done++;
    }
    free(card->writes);
    card->writes = NULL;
    sim_card_free(&other);
    free(now);
}

static void run(enum model model, const char *name, uint64_t seed, int64_t only)
{
    static const uint32_t SEGMENTS[5] = {2, 8, 16, 64, 128};
    uint64_t chance = seed;
    setup_t setup = {0};
    promise_t *promise = calloc(1, sizeof(*promise));
    sim_card_t card;
    sim_card_t cut;
    uint8_t *before;
    uint8_t *synced;
    size_t size;
    uint32_t epoch_start = 0;
    given_t *all;
    uint32_t total;
    uint32_t next = 0;
    uint32_t w;

    say(name, seed, 0);
    setup.segment_blocks = SEGMENTS[sim_below(&chance, 5)];
    setup.unit_blocks = 4u << sim_below(&chance, 4);
    setup.blocks = setup.segment_blocks >= 64 ? setup.segment_blocks * 3 + 2 * setup.unit_blocks + 1
                                              : 64 + 2 * setup.unit_blocks;
    setup.config.commit_ms = 1000000;
    setup.config.commit_bytes = sim_below(&chance, 3) * 2048;
    setup.config.full_mode = DRIP_FULL_OVERWRITE_ACKED;
    if (sim_below(&chance, 2) == 0) {
        setup.config.full_mode = DRIP_FULL_EVICT;
        setup.config.class_floor = (uint8_t)sim_below(&chance, 3);
        setup.segment_blocks = 8u << sim_below(&chance, 4);
        setup.blocks = setup.segment_blocks * (3 + sim_below(&chance, 4)) + 2 * setup.unit_blocks;
    }
    promise->given = calloc(MAX_GIVEN, sizeof(given_t));
    promise->flat = seed % 2 == 0;
    sim_card_init(&card, setup.blocks);
    sim_card_init(&cut, setup.blocks);
    cut.unreadable = calloc(setup.blocks, 1);
    size = (size_t)setup.blocks * DRIP_BLOCK_BYTES;
    for (w = 0; w < size; w++) {
        card.data[w] = (uint8_t)sim_random(&chance);
    }
    sim_format(&card, setup.unit_blocks, setup.segment_blocks, &chance);
    before = malloc(size);
    synced = malloc(size);
    memcpy(before, card.data, size);
    memcpy(synced, card.data, size);
    card.writes = malloc(MAX_WRITES * sizeof(sim_write_t));
    card.room = MAX_WRITES;
    card.written = 0;
    workload(&card, promise, &setup, &chance);
    all = promise->given;
    total = promise->count;
    forget(promise, 0);
    promise->given = calloc(MAX_GIVEN, sizeof(given_t));
    may_repeat = model == LOST;
    for (w = 0; w < card.written; w++) {
        const sim_write_t *write = &card.writes[w];
        uint64_t local = seed * 1000003u + w;
        uint32_t given;
        uint32_t kinds = model == TORN ? 4 : 1;
        uint32_t kind;

        if (w > 0 && write->epoch != card.writes[w - 1].epoch) {
            epoch_start = w;
            memcpy(synced, before, size);
        }
        for (; next < total && all[next].given_at <= w; next++) {
            promise->given[promise->count] = all[next];
            index_of[all[next].seq] = ++promise->count;
        }
        given = promise->count;
        for (kind = 0; kind < kinds && (only < 0 || only == w); kind++) {
            uint32_t unit = write->block & ~(setup.unit_blocks - 1);

            say(name, seed, w);
            copy_card(&cut, model == LOST ? synced : before);
            if (model == LOST) {
                lose(&cut, card.writes + epoch_start, w + 1 - epoch_start, &local);
                recover(&cut, promise, &setup, w, epoch_start, 0, 0);
            } else if (model == UNIT) {
                garble_unit(&cut, unit, setup.unit_blocks, &local);
                recover(&cut, promise, &setup, w, w, unit, setup.unit_blocks);
            } else if (model == AGAIN) {
                tear(block_of(&cut, write->block), write->data, sim_below(&local, 4), &local);
                cut_recovery(&cut, promise, &setup, w, &local);
            } else {
                uint64_t before_it = alarms;

                tear(block_of(&cut, write->block), write->data, kind, &local);
                recover(&cut, promise, &setup, w, w, 0, 0);
                MUST(kind != 0 || alarms == before_it, "a false alarm between two writes");
            }
            forget(promise, given);
            promise->fulls = promise->given_fulls;
            for (uint32_t i = 0; i < given; i++) {
                promise->given[i] = all[i];
                index_of[all[i].seq] = i + 1;
            }
            cuts_done++;
        }
        memcpy(before + (size_t)write->block * DRIP_BLOCK_BYTES, write->data, DRIP_BLOCK_BYTES);
    }
    forget(promise, 0);
    free(all);
    free(promise->given);
    free(promise);
    free(before);
    free(synced);
    sim_card_free(&card);
    sim_card_free(&cut);
}

int main(int argc, char **argv)
{
    static const char *const NAMES[4] = {"torn", "lost", "unit", "again"};
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t seeds = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
    uint64_t seed;
    int model;

    for (model = 0; model < 4; model++) {
        if (argc > 1 && strcmp(argv[1], NAMES[model]) == 0) {
            break;
        }
    }
    if (model == 4) {
        fprintf(stderr, "usage: cuts torn|lost|unit|again FIRST_SEED SEEDS [CUT]\n");
        return 2;
    }
    index_of = calloc(SEQS, sizeof(*index_of));
    for (seed = first; seed < first + seeds; seed++) {
        run((enum model)model, NAMES[model], seed, argc > 4 ? atoll(argv[4]) : -1);
    }
    free(index_of);
    printf("%llu cuts, %llu frames refused, %llu records evicted, %llu lost in the unit that was "
           "cut; of %llu cuts with a "
           "loss %llu say nothing; %llu report damage\n",
           (unsigned long long)cuts_done, (unsigned long long)refused,
           (unsigned long long)evictions, (unsigned long long)lost_in_unit,
           (unsigned long long)cuts_with_loss, (unsigned long long)cuts_untold,
           (unsigned long long)alarms);
    return 0;
}
