/* Witnesses: what lay in a block before it was written. A segment header and a mark remember 16 bits of each
 * block up to the next mark, and of the place of the next segment's header. So a mount can tell a block that
 * was never written from one whose content power loss has destroyed, and reports the loss. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum {
    NEXT_HEADER = DRIP_WITNESSES - 1,
    NEXT_MARK = NEXT_HEADER - 1,
    UNREADABLE = 0x10000, /* differs from every witness */
};

_Static_assert((int)NEXT_HEADER == (int)DRIP_MARK_BLOCKS,
               "a mark speaks for all blocks up to the next one");

/* 0 is left for what nobody knows. */
static uint32_t witness_of(const uint8_t *block)
{
    uint32_t crc = drip_crc32(0, block, DRIP_BLOCK_BYTES);
    uint32_t folded = (crc ^ crc >> 16) & 0xffff;

    return folded != 0 ? folded : 1;
}

static int differs(uint32_t witness, uint32_t now)
{
    return witness != 0 && witness != now;
}

/* ---------------------------------------------------------------- before a block is written */

static void note(drip_log_t *log, uint32_t witness)
{
    log_witness(log)[log->probe_step++] = (uint16_t)witness;
}

int drip_log_witness_step(drip_log_t *log, uint32_t segment, uint32_t block)
{
    uint32_t at;
    int result;

    while (log->probe_step < DRIP_WITNESSES) {
        at = block + 1 + log->probe_step;
        if (log->probe_step == NEXT_HEADER) {
            at = drip_log_segment_block(log, segment + 1);
        } else if (at < log->super.segment_blocks) {
            at += drip_log_segment_block(log, segment);
        } else {
            note(log, 0);
            continue;
        }
        /* Nothing waits in `block` when the next one is a header or a mark. */
        result = drip_log_start_read(log, TASK_WITNESS, at, &log->block, 1);
        if (result < 0) {
            drip_log_fail(log, result);
        }
        return 1;
    }
    return 0;
}

void drip_log_witness_done(drip_log_t *log, int result)
{
    note(log, result < 0 ? 0 : witness_of(log->block.bytes));
}

void drip_log_witness_take(drip_log_t *log, uint16_t *out)
{
    memcpy(out, log_witness(log), DRIP_WITNESSES * sizeof(*out));
    log->probe_step = 0;
}

int drip_log_witness_mark(drip_log_t *log)
{
    return log->block_fill == 0 && log->block_number % DRIP_MARK_BLOCKS == 0 &&
           drip_log_witness_step(log, log->next_segment - 1, log->block_number);
}

/* ---------------------------------------------------------------- mount */

/* Bit n of `evict_fill`: block n + 1 behind the last mark is not what its witness says. */
void drip_log_witness_seen(drip_log_t *log, uint32_t block, int result)
{
    uint32_t bit = block - log->block_number * DRIP_MARK_BLOCKS - 1;
    uint32_t now = result < 0 ? (uint32_t)UNREADABLE : witness_of(log->block.bytes);

    if (bit <= NEXT_MARK) {
        log->evict_fill &= ~(1u << bit);
        log->evict_fill |= (uint32_t)differs(log->copy.head.witness[bit], now) << bit;
    }
}

void drip_log_witness_header(drip_log_t *log, int result)
{
    log->evict_room = result < 0 ? (uint32_t)UNREADABLE : witness_of(log->block.bytes);
}

static int is_changed(const drip_log_t *log, uint32_t block)
{
    uint32_t bit = block - log->block_number * DRIP_MARK_BLOCKS - 1;

    return bit <= NEXT_MARK && (log->evict_fill >> bit & 1) != 0;
}

/* Nothing is left out between two records but the rest of a block, and claims. */
static int is_hole(const drip_log_t *log)
{
    uint32_t from = log->scan_end > log->scan_claim ? log->scan_end : log->scan_claim;
    uint32_t block = log_align(from, DRIP_BLOCK_BYTES) / DRIP_BLOCK_BYTES;

    for (; block < log->scan / DRIP_BLOCK_BYTES; block++) {
        if (is_changed(log, block)) {
            return 1;
        }
    }
    return 0;
}

/* What was taken over from a victim lies in one piece, and what is new starts in the next block. */
static int is_survivor_hole(const drip_log_t *log)
{
    uint32_t least = log->block_number * LOG_AREA_BYTES;
    uint32_t expected = log->scan_end > least ? log->scan_end : least;

    if (log->copy.head.victim == 0 || log->scan_seq >= log->copy.head.next_seq) {
        return 0;
    }
    if (log->header.seq >= log->copy.head.next_seq) {
        expected = log_align(expected, DRIP_BLOCK_BYTES);
    }
    return log->scan > log_skip(expected);
}

void drip_log_witness_record(drip_log_t *log, int intact)
{
    int loss = is_hole(log) || is_survivor_hole(log);

    if (!intact) {
        /* It was finished, or this block was being written. */
        loss |=
            is_changed(log, (log->scan_at - 1) / DRIP_BLOCK_BYTES) || drip_log_missing(log) != 0;
    }
    log->direct |= (uint32_t)loss;
}

/* Behind the end nothing was written, unless it was lost. The first block there may also be what was being
 * written when power failed. */
void drip_log_witness_judge(drip_log_t *log, uint32_t end)
{
    uint32_t first = end / DRIP_BLOCK_BYTES - log->block_number * DRIP_MARK_BLOCKS - 1;
    /* The place of a mark that ends the last record is skipped already. */
    uint32_t behind = log->evict_fill >> (first < NEXT_MARK ? first : NEXT_MARK);

    if (log->scan_cut) {
        /* The rest is of the record that was cut. */
        behind = log->evict_fill >> NEXT_MARK;
        log->direct |= is_hole(log) || is_survivor_hole(log) || drip_log_missing(log) != 0;
    }
    if (behind > 1 || log->direct != 0) {
        log->open = 0; /* it would be taken for a loss again and again */
    }
    log->damaged += behind != 0 || log->direct != 0;
    log->direct = 0;
}

void drip_log_witness_judge_header(drip_log_t *log)
{
    uint32_t witness = log->copy.head.witness[NEXT_HEADER];

    if (log->next_segment == log->super.next_segment && log->super.witness != 0) {
        witness = log->super.witness;
    }
    if (log->evict_room != 0 && differs(witness, log->evict_room)) {
        /* Until a record has its place there, every mount is to find it. */
        log->evict_room = witness;
        log->damaged++;
        log->open = 0;
    }
}
