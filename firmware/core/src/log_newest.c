/* Finding the newest segment and the oldest one, from what a superblock or a header says. */
#include "drip/log.h"

#include <string.h>

#include "log_internal.h"

enum {
    ASKED_TWICE = 2, /* for the segment behind the newest */
    HEAD_TWICE = 3,  /* and for the header of the newest */
};

static int is_segment(const drip_log_t *log, uint32_t segment)
{
    const drip_segment_header_t *header = &log->block.segment;

    return drip_log_check_segment(header) == DRIP_ERR_OK && header->segment == segment &&
           memcmp(header->log_uuid, log->super.log_uuid, sizeof(header->log_uuid)) == 0;
}

static int probe_end(drip_log_t *log)
{
    uint32_t count = log->super.segment_count;

    log->tail_segment = log->next_segment > count ? log->next_segment - count : 0;
    if (log->tail_segment < log->super.tail_segment) {
        log->tail_segment = log->super.tail_segment;
    }
    log->stage = MOUNT_HEAD;
    if (log->next_segment == 0) {
        log->stage = MOUNT_WRITE;
        drip_log_witness_judge_header(log);
    }
    if (log->next_segment >= count && log->tail_segment == log->next_segment - count &&
        log->tail_segment < log->super.acked_segment) {
        log->stage = MOUNT_TAIL;
    }
    return 1;
}

/* The oldest segment was free to be overwritten: power may have failed in the middle of that. */
void drip_log_tail_done(drip_log_t *log, int result)
{
    if (result != DRIP_ERR_OK || !is_segment(log, log->tail_segment)) {
        log->tail_segment++;
    }
    log->stage = MOUNT_HEAD;
}

/* Doubles the step while segments are found, then halves it. The first step is two, so that one
 * damaged header does not hide the segment after it. */
int drip_log_probe_step(drip_log_t *log)
{
    uint32_t segment = log->next_segment - 1 + log->probe_step;

    if (log->probe_step == 0) {
        if (log->probe_back == ASKED_TWICE) {
            return probe_end(log);
        }
        /* What is opened next is written over: one wrong answer must not hide that it exists. */
        log->probe_back = ASKED_TWICE;
        log->probe_step = 1;
        segment = log->next_segment;
    }
    if (segment >= LOG_MAX_SEGMENT) {
        log->probe_back = log->probe_back != 0 ? log->probe_back : 1;
        log->probe_step /= 2;
        return 1;
    }
    return drip_log_mount_read(log, drip_log_segment_block(log, segment));
}

void drip_log_probe_done(drip_log_t *log, int result)
{
    uint32_t segment = log->next_segment - 1 + log->probe_step;

    drip_log_witness_header(log, result);
    /* One of an earlier boot was lost with its neighbours, and the log went on before it. */
    if (result == DRIP_ERR_OK && is_segment(log, segment) &&
        log->block.segment.boot_id >= log->super.boot_id) {
        log->next_segment = segment + 1;
        if (log->probe_back == ASKED_TWICE) {
            log->probe_back = 0;
            log->probe_step = 2;
            return;
        }
    } else if (log->probe_back == 0) {
        log->probe_back = 1;
    }
    log->probe_step = log->probe_back ? log->probe_step / 2 : log->probe_step * 2;
}

static void begin_marks(drip_log_t *log)
{
    drip_log_scan_begin(log, log->next_segment - 1, DRIP_SEGMENT_HEADER_BYTES,
                        drip_log_segment_bytes(log), 1);
    log->probe_step = 1;
    if (log->supers == 0 && log->super.segment_blocks > 2 * DRIP_MARK_BLOCKS) {
        log->probe_step = log_half(log->super.segment_blocks / DRIP_MARK_BLOCKS);
        log->probe_back = 1;
    } else {
        log->probe_back = 0;
    }
    log->block_number = 0;
    log->stage = MOUNT_MARK;
}

void drip_log_head_done(drip_log_t *log, int result)
{
    const drip_segment_header_t *header = &log->block.segment;

    log->open = 0;
    if (result == DRIP_ERR_OK && is_segment(log, log->next_segment - 1)) {
        log->open = 1;
        log->scan_seq = header->first_seq;
        log->evict_need = header->boot_id;
        log->gaps = header->gaps;
        if (header->boot_id > log->super.boot_id) {
            log->super.boot_id = header->boot_id;
        }
        if (header->acked_segment > log->super.acked_segment &&
            header->acked_segment < log->next_segment) {
            log->super.acked_segment = header->acked_segment;
        }
        if (header->tail_segment > log->tail_segment && header->tail_segment < log->next_segment) {
            log->tail_segment = header->tail_segment;
        }
        log->copy.head = *header;
        log->stage = MOUNT_NEXT;
        return;
    }
    if (log->probe_back != HEAD_TWICE) {
        log->probe_back = HEAD_TWICE;
        return;
    }
    /* Its records can be read, but nothing is added to a segment that is damaged. */
    log->damaged++;
    begin_marks(log);
}

/* A record behind the newest segment: that has a header, which is damaged. */
void drip_log_next_done(drip_log_t *log, int result)
{
    drip_record_header_t first;
    uint64_t seq = log->copy.head.next_seq;

    seq = seq > log->scan_seq ? seq : log->scan_seq;
    memcpy(&first, log->block.bytes, sizeof(first));
    if (result == DRIP_ERR_OK && drip_log_is_header(log, log->next_segment, &first, seq + 1)) {
        log->next_segment++;
        log->open = 0;
        log->damaged++;
        memset(log->copy.head.witness, 0, sizeof(log->copy.head.witness));
        log->evict_room = 0;
    }
    begin_marks(log);
}
