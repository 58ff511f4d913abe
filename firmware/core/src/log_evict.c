/* Making room in a full log: the best records of the oldest segment are taken over into a new one, at most
 * half of it, the others are dropped. The victim stays whole until a GAP record behind what was taken
 * over is on the card: before, a mount finds the victim and forgets the new segment. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

void drip_log_evict(drip_log_t *log, uint32_t need)
{
    log->card = DRIP_CARD_READY;
    log->evict_need = need;
    log->evict_stage = EVICT_CLOSE;
}

static void close(drip_log_t *log)
{
    if (log->block_fill > 0) {
        (void)drip_log_flush(log);
        return;
    }
    drip_log_mark_durable(log, 0);
    log->open = 0;
    log->evict_stage = drip_log_needs_super(log) ? EVICT_SUPER : EVICT_INFO;
}

static void start_read(drip_log_t *log, uint32_t block, void *out)
{
    int result = drip_log_start_read(log, TASK_EVICT, block, out, 1);

    if (result < 0) {
        drip_log_fail(log, result);
    }
}

/* ---------------------------------------------------------------- victim */

static void know_victim(drip_log_t *log)
{
    log->scan_limit = log->closed.bytes;
    log->ack_records = log->closed.unknown ? 0 : log->closed.records;
    if (drip_log_slot_free(log, log->next_segment)) {
        log->evict_stage = EVICT_HEAD;
        return;
    }
    /* Nothing can be taken over: the log was full before it was told to evict. */
    log->evict_room = 0;
    log->evict_stage = EVICT_AGAIN;
}

static void info(drip_log_t *log)
{
    uint32_t free = drip_log_slot_free(log, log->next_segment) ? 1u : 0u;

    drip_log_clear_work(log);
    log->scan_segment = log->next_segment + free - log->super.segment_count;
    if (drip_log_know_closed(log, log->scan_segment)) {
        know_victim(log);
        return;
    }
    start_read(log, drip_log_segment_block(log, log->scan_segment + 1), &log->block);
}

static void begin_scan(drip_log_t *log, const drip_segment_header_t *header, int result)
{
    drip_log_scan_begin(log, log->scan_segment, DRIP_SEGMENT_HEADER_BYTES, log->scan_limit,
                        SCAN_EACH);
    if (result == DRIP_ERR_OK && drip_log_check_segment(header) == DRIP_ERR_OK &&
        header->segment == log->scan_segment) {
        log->scan_seq = header->first_seq;
    }
}

void drip_log_evict_done(drip_log_t *log, int result)
{
    if (log->evict_stage == EVICT_INFO) {
        drip_log_learn_closed(log, log->scan_segment,
                              result == DRIP_ERR_OK ? &log->block.segment : NULL);
        know_victim(log);
    } else if (log->evict_stage == EVICT_HEAD) {
        begin_scan(log, &log->block.segment, result);
        memset(&log->copy, 0, sizeof(log->copy));
        log->evict_fill = 0;
        log->evict_stage = EVICT_SUMMARY;
    } else if (log->evict_stage == EVICT_AGAIN) {
        begin_scan(log, &log->copy.head, result);
        log->evict_stage = EVICT_WALK;
    } else {
        if (result < 0) {
            log_evict(log)->damaged++;
        }
        drip_log_scan_done(log, result);
    }
}

/* On to the record behind the one that was found. */
static void next(drip_log_t *log)
{
    log->scan_seq = log->header.seq + 1;
    drip_log_scan_from(log, drip_log_advance(log->scan, log_size_of(&log->header)));
}

/* Returns 1 when a record was found, 0 while there may be one, -1 at the end. */
static int find(drip_log_t *log)
{
    int found = drip_log_scan_step(log, TASK_EVICT);

    if (found != 2) {
        return found == 0 ? -1 : 0;
    }
    return 1;
}

static void summarise(drip_log_t *log)
{
    int found = find(log);

    if (found > 0) {
        drip_log_summarise(log, drip_log_bucket(log, &log->header));
        next(log);
    } else if (found < 0) {
        drip_log_choose(log);
        log->evict_stage = EVICT_HEADER;
    }
}

static void walk(drip_log_t *log)
{
    drip_record_header_t *header = &log->header;
    int found = find(log);

    if (found < 0) {
        log->evict_stage = EVICT_END;
    }
    if (found <= 0) {
        return;
    }
    log->scan_records++;
    log->mark_crc = 0;
    log->scan_at = drip_log_advance(log->scan, DRIP_RECORD_HEADER_BYTES);
    if (log_kind_of(header) == DRIP_RECORD_KIND_GAP &&
        header->payload_bytes == sizeof(drip_record_gap_t)) {
        log->cursor = DRIP_RECORD_HEADER_BYTES;
        log->evict_stage = EVICT_MERGE;
    } else if (log->open && drip_log_survives(log, drip_log_bucket(log, header))) {
        log->evict_room -= log_size_of(header);
        header->header_crc = drip_crc32(drip_log_record_seed(log, log->next_segment - 1), header,
                                        DRIP_RECORD_HEADER_BYTES - sizeof(header->header_crc));
        log->cursor = 0;
        log->evict_stage = EVICT_COPY;
    } else {
        log_evict(log)->dropped++;
        if (log_kind_of(header) == DRIP_RECORD_KIND_FRAME) {
            /* A segment holds less than 2^19 records. */
            log_evict(log)->ranks += drip_log_rank(header) / 8;
        }
        next(log);
    }
}

/* ---------------------------------------------------------------- copying */

/* Where the payload goes on in the victim: at most `n` bytes of it. Returns 0 while they are read. */
static uint32_t take(drip_log_t *log, uint32_t n, const uint8_t **bytes)
{
    uint32_t at = log_skip(log->scan_at);
    uint32_t left = DRIP_BLOCK_BYTES - at % DRIP_BLOCK_BYTES;

    if (at / DRIP_BLOCK_BYTES != log->scan_block) {
        log->scan_block = at / DRIP_BLOCK_BYTES;
        start_read(log, drip_log_segment_block(log, log->scan_segment) + log->scan_block,
                   &log->copy);
        return 0;
    }
    n = n < left ? n : left;
    *bytes = log->copy.bytes + at % DRIP_BLOCK_BYTES;
    log->mark_crc = drip_crc32(log->mark_crc, *bytes, n);
    log->scan_at = at + n;
    return n;
}

static void copied(drip_log_t *log)
{
    const drip_record_header_t *header = &log->header;
    uint32_t end = log_align(log->block_fill, DRIP_RECORD_ALIGN);

    memset(log->block.bytes + log->block_fill, 0, end - log->block_fill);
    log->block_fill = end;
    log->offset = drip_log_advance(log->offset, log_size_of(header));
    if (log->mark_crc == header->payload_crc) {
        log->records++;
        log->digest = drip_crc32(log->digest, &header->header_crc, sizeof(header->header_crc));
    } else {
        log_evict(log)->damaged++;
    }
    next(log);
    log->evict_stage = EVICT_WALK;
}

static void copy(drip_log_t *log)
{
    uint32_t total = log->header.header_bytes + log->header.payload_bytes;
    const uint8_t *bytes = (const uint8_t *)&log->header + log->cursor;
    uint32_t n;

    if (drip_log_witness_mark(log)) {
        log->scan_block = 0xffffffff; /* its place in memory was taken */
        return;
    }
    drip_log_put_mark(log);
    n = DRIP_BLOCK_BYTES - log->block_fill;
    if (log->cursor < DRIP_RECORD_HEADER_BYTES) {
        n = n < DRIP_RECORD_HEADER_BYTES - log->cursor ? n : DRIP_RECORD_HEADER_BYTES - log->cursor;
    } else {
        n = take(log, n < total - log->cursor ? n : total - log->cursor, &bytes);
    }
    memcpy(log->block.bytes + log->block_fill, bytes, n);
    log->block_fill += n;
    log->cursor += n;
    if (log->cursor == total) {
        copied(log);
    }
    if (log->block_fill == DRIP_BLOCK_BYTES) {
        (void)drip_log_flush(log);
    }
}

/* The GAP records of a victim become part of the one that follows. */
static void merge(drip_log_t *log)
{
    uint32_t total = DRIP_RECORD_HEADER_BYTES + (uint32_t)sizeof(drip_record_gap_t);
    log_evict_t *evict = log_evict(log);
    uint8_t *found = (uint8_t *)&evict->found;
    const uint8_t *bytes = found;
    uint32_t n = take(log, total - log->cursor, &bytes);

    memcpy(found + (log->cursor - DRIP_RECORD_HEADER_BYTES), bytes, n);
    log->cursor += n;
    if (log->cursor < total) {
        return;
    }
    if (log->mark_crc == log->header.payload_crc) {
        evict->full += evict->found.full;
        evict->card += evict->found.card;
        evict->damaged += evict->found.damaged;
        evict->evicted += evict->found.evicted;
    }
    next(log);
    log->evict_stage = EVICT_WALK;
}

static void end(drip_log_t *log)
{
    const log_evict_t *evict = log_evict(log);
    drip_record_gap_t *gap;

    if (log->block_fill > 0) {
        /* The GAP record speaks for all before it: it lies in a block of its own. */
        (void)drip_log_flush(log);
        return;
    }
    drip_log_mark_durable(log, 0);
    log->evicted += evict->dropped;
    log->tail_segment = log->scan_segment + 1;
    log->evict_stage = EVICT_INFO;
    if (log->open) {
        drip_log_set_level(log);
        log->evict_stage = EVICT_NONE;
        drip_log_start_gap(log, 1);
    }
    /* When it does not reach the card, the victim is found again. */
    gap = log_gap_pending(log) ? &log->copy.gap : &log->gap;
    gap->full += evict->full;
    gap->card += evict->card;
    gap->card += log->ack_records > log->scan_records ? log->ack_records - log->scan_records : 0;
    gap->damaged += evict->damaged;
    gap->evicted += evict->evicted + evict->dropped;
    drip_log_clear_work(log);
}

void drip_log_evict_step(drip_log_t *log)
{
    switch (log->evict_stage) {
    case EVICT_CLOSE:
        close(log);
        break;
    case EVICT_SUPER:
        (void)drip_log_start_super(log);
        break;
    case EVICT_INFO:
        info(log);
        break;
    case EVICT_HEAD:
        start_read(log, drip_log_segment_block(log, log->scan_segment), &log->block);
        break;
    case EVICT_SUMMARY:
        summarise(log);
        break;
    case EVICT_HEADER:
        drip_log_write_header(log, 0, log->next_seq, log->scan_segment + 1);
        break;
    case EVICT_AGAIN:
        start_read(log, drip_log_segment_block(log, log->scan_segment), &log->copy);
        break;
    case EVICT_WALK:
        walk(log);
        break;
    case EVICT_COPY:
        copy(log);
        break;
    case EVICT_MERGE:
        merge(log);
        break;
    default:
        end(log);
    }
}
