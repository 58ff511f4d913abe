/* Which records of a segment survive when it is evicted, and what a mount finds when that was cut. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum {
    BUCKET_SHIFT = 10,  /* of a percentile in `bytes` of the summary */
    QUARTER_SHIFT = 14, /* in `classes` */
    BUCKET_COUNT = 64,
    CLASS_MASK = 63,
    GAP_RECORD_BYTES = DRIP_RECORD_HEADER_BYTES + sizeof(drip_record_gap_t),
    SLACK_BYTES = 2 * DRIP_BLOCK_BYTES, /* ends of blocks and the GAP record around a mark */
};

/* Sets the floor of every class. Returns the number of frames that are kept for it at most. */
static uint32_t choose_floors(drip_log_t *log)
{
    const uint8_t(*classes)[4] = log->copy.summary.classes;
    uint32_t wanted =
        log->config.class_floor < CLASS_MASK ? log->config.class_floor : CLASS_MASK - 1;
    uint32_t frames = 0;
    uint32_t c;

    for (c = 0; c <= CLASS_MASK; c++) {
        uint32_t quarter = 3;
        uint32_t above = 0;

        while (quarter > 0 && above + classes[c][quarter] < wanted) {
            above += classes[c][quarter--];
        }
        log_evict(log)->floor[c] = (uint8_t)(quarter << 6 | (wanted - above));
        above += classes[c][quarter];
        frames += above < wanted ? above : wanted;
    }
    return frames;
}

void drip_log_choose(drip_log_t *log)
{
    uint32_t bytes = drip_log_segment_bytes(log);
    uint32_t used = DRIP_SEGMENT_HEADER_BYTES + bytes / LOG_AREA_BYTES * DRIP_LOG_MARK_BYTES +
                    GAP_RECORD_BYTES + SLACK_BYTES;
    uint32_t half =
        (bytes - log->evict_need) / 2; /* the record that waits may not fit at the end */
    uint32_t room = used < half ? half - used : 0;
    uint32_t floors;
    uint32_t bucket = BUCKET_COUNT - 1;

    floors = choose_floors(log) * log->evict_fill;
    log->evict_room = room;
    room -= floors < room ? floors : room;
    while (bucket > 0 && log->copy.summary.bytes[bucket] <= room) {
        room -= log->copy.summary.bytes[bucket--];
    }
    log->evict_bucket = (uint8_t)bucket;
    log->evict_fill = room;
}

void drip_log_summarise(drip_log_t *log)
{
    const drip_record_header_t *header = &log->header;
    drip_log_summary_t *summary = &log->copy.summary;
    uint8_t *count =
        &summary->classes[header->class_1 & CLASS_MASK][header->percentile >> QUARTER_SHIFT];
    uint32_t size = log_size_of(header);

    if (log_kind_of(header) == DRIP_RECORD_KIND_FRAME) {
        summary->bytes[header->percentile >> BUCKET_SHIFT] += size;
        *count = (uint8_t)(*count + (*count < 255));
        log->evict_fill = size > log->evict_fill ? size : log->evict_fill;
    } else if (log_kind_of(header) != DRIP_RECORD_KIND_GAP) {
        summary->bytes[BUCKET_COUNT - 1] += size;
    }
}

/* Is a frame one of those that its class keeps at least? */
static int is_floor(drip_log_t *log)
{
    uint8_t *floor = &log_evict(log)->floor[log->header.class_1 & CLASS_MASK];
    uint32_t quarter = log->header.percentile >> QUARTER_SHIFT;

    if (log->config.class_floor == 0 || quarter < (uint32_t)*floor >> 6) {
        return 0;
    }
    if (quarter > (uint32_t)*floor >> 6) {
        return 1;
    }
    if ((*floor & CLASS_MASK) == 0) {
        return 0;
    }
    --*floor;
    return 1;
}

int drip_log_survives(drip_log_t *log)
{
    uint32_t size = log_size_of(&log->header);
    uint32_t bucket = log->header.percentile >> BUCKET_SHIFT;

    if (log->evict_room < size) {
        return 0;
    }
    if (log_kind_of(&log->header) != DRIP_RECORD_KIND_FRAME || is_floor(log) ||
        bucket > log->evict_bucket) {
        return 1;
    }
    if (bucket < log->evict_bucket || log->evict_fill < size) {
        return 0;
    }
    log->evict_fill -= size;
    return 1;
}

/* The newest segment took records over from a victim: was it finished before power failed? */
void drip_log_settle_victim(drip_log_t *log)
{
    const drip_segment_header_t *head = &log->copy.head;

    if (head->victim == 0 || head->victim >= head->segment + 1 || head->segment == 0) {
        return;
    }
    if (log->next_segment > head->segment + 1 || log->scan_seq > head->next_seq) {
        log->tail_segment = log->tail_segment > head->victim ? log->tail_segment : head->victim;
        return;
    }
    /* The victim still has all of it, and no new record is behind the header. */
    drip_log_learn_closed(log, head->segment - 1, head);
    log->next_segment = head->segment;
    if (head->tail_segment < head->victim) {
        log->tail_segment = head->tail_segment;
    }
    log->open = 0;
    log->records = log->closed.records;
    log->digest = log->closed.digest;
    log->offset = log->closed.bytes;
    log->unknown = log->closed.unknown;
    log->scan_seq = head->next_seq;
}
