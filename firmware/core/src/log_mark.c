/* Marks: every so many blocks of a segment one says what lies before it, so that a mount finds the end
 * of the log without reading the segment. Records flow around them. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

static uint32_t mark_crc(const drip_log_t *log, uint32_t segment, const drip_log_mark_t *mark)
{
    return drip_crc32(drip_log_record_seed(log, segment), mark, sizeof(*mark) - sizeof(mark->crc));
}

void drip_log_put_mark(drip_log_t *log)
{
    drip_log_mark_t *mark = &log->block.mark;
    uint32_t done;

    if (log->block_fill != 0 || log->block_number % DRIP_MARK_BLOCKS != 0) {
        return;
    }
    memset(mark, 0, sizeof(*mark));
    mark->magic = DRIP_MARK_MAGIC;
    mark->block = log->block_number;
    mark->records = log->records;
    mark->digest = log->digest;
    mark->next_seq = log->header.seq;
    mark->boot_id = log->boot_id;
    mark->flags = log->unknown ? DRIP_SEGMENT_PREVIOUS_UNKNOWN : 0;
    mark->end = log->offset;
    mark->cursor = log->cursor;
    mark->gaps = log->gaps;
    drip_log_witness_take(log, mark->witness);
    if (log->cursor > DRIP_RECORD_HEADER_BYTES) {
        done = log->cursor - DRIP_RECORD_HEADER_BYTES;
        if (log->evict_stage == EVICT_NONE) {
            log->mark_crc =
                drip_crc32(log->mark_crc, log->payload + log->mark_bytes, done - log->mark_bytes);
            log->mark_bytes = done;
        }
        mark->payload_crc = log->mark_crc;
    }
    mark->crc = mark_crc(log, log->next_segment - 1, mark);
    log->block_fill = DRIP_LOG_MARK_BYTES;
}

static uint32_t area_end(const drip_log_t *log)
{
    uint32_t end = (log->block_number + 1) * LOG_AREA_BYTES;

    return end < drip_log_segment_bytes(log) ? end : drip_log_segment_bytes(log);
}

/* Without superblocks the reads are needed elsewhere: halving finds the last mark, and then the place of
 * the next one is looked at. Records that reach that close the segment, so a damaged mark costs no more. */
static uint32_t halving_mark(drip_log_t *log)
{
    uint32_t marks = log->super.segment_blocks / DRIP_MARK_BLOCKS;

    while (log->probe_step > 0 && log->block_number + log->probe_step >= marks) {
        log->probe_step /= 2;
    }
    if (log->probe_step > 0) {
        return log->block_number + log->probe_step;
    }
    log->probe_back = 0;
    log->probe_step = log->block_number + 1;
    return log->probe_step;
}

/* Reads all marks: a gap between two shows damage. */
int drip_log_mark_step(drip_log_t *log)
{
    uint32_t number = log->probe_back != 0 ? halving_mark(log) : log->probe_step;
    uint32_t block = number * DRIP_MARK_BLOCKS;

    if (block < log->super.segment_blocks) {
        return drip_log_mount_read(log, drip_log_segment_block(log, log->next_segment - 1) + block);
    }
    log->scan_limit = area_end(log);
    log->stage = MOUNT_SCAN;
    return 1;
}

static int is_mark(const drip_log_t *log, uint32_t number)
{
    const drip_log_mark_t *mark = &log->block.mark;

    return mark->magic == DRIP_MARK_MAGIC && mark->block == number * DRIP_MARK_BLOCKS &&
           mark->crc == mark_crc(log, log->next_segment - 1, mark) &&
           mark->end <= mark->block * DRIP_BLOCK_BYTES &&
           mark->cursor < DRIP_RECORD_HEADER_BYTES + DRIP_MAX_FRAME_BYTES;
}

void drip_log_mark_done(drip_log_t *log, int result)
{
    const drip_log_mark_t *mark = &log->block.mark;
    uint32_t number;

    if (log->probe_back != 0) {
        number = log->block_number + log->probe_step;
        log->probe_step /= 2;
    } else {
        /* The one that halving has left is the last. */
        number = log->probe_step;
        log->probe_step = log->supers != 0 ? number + 1 : log->super.segment_blocks;
    }
    if (result < 0 || !is_mark(log, number)) {
        drip_log_witness_seen(log, number * DRIP_MARK_BLOCKS, result);
        return;
    }
    log->evict_fill = 0;
    memcpy(log->copy.head.witness, mark->witness, sizeof(mark->witness));
    if (log->supers != 0 && number != log->block_number + 1) {
        log->damaged += number - log->block_number - 1;
        log->unknown = 1;
        log->open = 0;
    }
    log->block_number = number; /* of the last mark, until the end is found */
    log->scan_records = mark->records;
    log->scan_digest = mark->digest;
    log->scan_seq = mark->next_seq;
    log->gaps = mark->gaps;
    log->evict_need = mark->boot_id;
    log->scan_end = mark->end;
    drip_log_scan_from(log, mark->cursor > 0 ? mark->end : mark->block * DRIP_BLOCK_BYTES);
    log->ack_records = mark->cursor;
    log->ack_digest = mark->payload_crc;
    if (mark->flags != 0) {
        log->unknown = 1;
    }
    if (mark->boot_id > log->super.boot_id) {
        log->super.boot_id = mark->boot_id;
    }
}

/* What the log goes on with is written over. A record there whose header was seen is passed by, intact or not;
 * one whose header was misread is found by reading the place where it would start once more. */
int drip_log_look_again(drip_log_t *log)
{
    uint32_t limit = area_end(log);
    uint32_t records = log->scan_look == 0 ? log->scan_records : log->mark_bytes;

    if (log->scan_look == 0) {
        if (!log->open || log->scan_cut || log->scan_end > limit - DRIP_BLOCK_BYTES ||
            log->scan_claim > log->scan_end) {
            return 0;
        }
        log->mark_bytes = records;
        limit = log_align(log->scan_end, DRIP_BLOCK_BYTES) + DRIP_BLOCK_BYTES;
    } else if (log->scan_look > 1 || (!log->scan_cut && log->scan_records == records)) {
        log->scan_limit = limit;
        return 0;
    }
    log->scan_look++;
    log->scan_cut = 0;
    log->scan_limit = limit;
    log->scan_block = 0xffffffff;
    drip_log_scan_from(log, log->scan_end);
    return 1;
}

/* Recording goes on in the next block, never in front of the last mark: that would be a lie then. */
void drip_log_found_end(drip_log_t *log)
{
    uint32_t least = log->block_number * LOG_AREA_BYTES;
    uint32_t last = log->scan_end > log->scan_claim ? log->scan_end : log->scan_claim;
    uint32_t end = log_align(last, DRIP_BLOCK_BYTES);

    log->records = log->scan_records;
    log->digest = log->scan_digest;
    if ((log->scan_cut || last > log->scan_limit - DRIP_BLOCK_BYTES) &&
        log->scan_limit < drip_log_segment_bytes(log)) {
        /* The block with the next mark was due. It was cut, or it is damaged and more follows. */
        log->unknown = 1;
        log->open = 0;
    }
    drip_log_witness_judge(log, end);
    if (log->block_number > 0 && end < least + DRIP_BLOCK_BYTES) {
        end = least + DRIP_BLOCK_BYTES;
    }
    if (end > drip_log_segment_bytes(log)) {
        end = drip_log_segment_bytes(log); /* filled to the last byte: no mark follows */
    }
    log->offset = end;
    log->durable_offset = end;
    log->block_number = end / DRIP_BLOCK_BYTES;
    log->cursor = 0;
}
