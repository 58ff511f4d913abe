/* Which records of a segment survive when it is evicted, and what a mount finds when that was cut. */
#include "drip/log.h"

#include <stddef.h>
#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum {
    RANKS = 65536,
    BUCKET_COUNT = 64, /* in `bytes`: the first is for all below the level */
    QUARTER_SHIFT = 4, /* of a bucket, in `classes` */
    PACE_MOST = 65535,
    PACE_REFUSED = 4,
    PACE_TAKEN = 255 * PACE_REFUSED, /* one of 256 is taken, however low they rank */
    PACE_MOUNT = 64,                 /* not all of them may have been noted on the card */
    CLASS_MASK = 63,
    GAP_RECORD_BYTES = DRIP_RECORD_HEADER_BYTES + sizeof(drip_record_gap_t),
    SLACK_BYTES = 2 * DRIP_BLOCK_BYTES, /* ends of blocks and the GAP record around a mark */
};

_Static_assert(sizeof(log_evict_t) <= sizeof(((drip_superblock_t *)0)->scratch), "it lies there");

uint16_t drip_log_level(const drip_log_t *log)
{
    const log_evict_t *evict = log_evict_of(log);
    uint16_t most = evict->pace > PACE_REFUSED ? evict->pace : 0;

    return evict->level < most ? evict->level : most;
}

uint32_t drip_log_rank(const drip_record_header_t *header)
{
    uint32_t crc;

    if ((header->flags & DRIP_REASON_RANDOM_SHARE) == 0) {
        return header->percentile;
    }
    /* What nobody can choose, and nothing else depends on: moment and boot. */
    crc = drip_crc32(0, &header->time_us, sizeof(header->time_us));
    return drip_crc32(crc, &header->boot_id, sizeof(header->boot_id)) >> 16;
}

uint32_t drip_log_bucket(const drip_log_t *log, const drip_record_header_t *header)
{
    uint32_t level = drip_log_level(log);
    uint32_t rank = drip_log_rank(header);

    return rank < level ? 0 : 1 + (rank - level) / ((RANKS - 1 - level) / (BUCKET_COUNT - 1) + 1);
}

enum { UNRANKED, DRAWN, SCORED };

/* Frames of the random share count for no class: one that a floor keeps was not drawn for that. */
static int how_ranked(const drip_record_header_t *header)
{
    uint32_t id[2];

    memcpy(id, header->model_id, sizeof(id));
    if (log_kind_of(header) != DRIP_RECORD_KIND_FRAME ||
        (header->flags & DRIP_REASON_NO_MODEL) != 0) {
        return UNRANKED;
    }
    if ((header->flags & DRIP_REASON_RANDOM_SHARE) != 0) {
        return DRAWN;
    }
    return header->percentile > 0 || (id[0] | id[1]) != 0 ? SCORED : UNRANKED;
}

int drip_log_turn_away(drip_log_t *log, const drip_record_header_t *header)
{
    log_evict_t *evict = log_evict(log);
    int ranked = how_ranked(header);

    if (ranked == UNRANKED || drip_log_bucket(log, header) > 0) {
        return 0;
    }
    if (ranked == SCORED) {
        if (evict->floor[header->class_1 & CLASS_MASK] > 0) {
            return 0;
        }
        evict->pace = (uint16_t)(evict->pace - PACE_REFUSED);
    }
    log->evicted++;
    log->gap.evicted++;
    return 1;
}

void drip_log_count_taken(drip_log_t *log)
{
    log_evict_t *evict = log_evict(log);
    uint8_t *lacks = &evict->floor[log->header.class_1 & CLASS_MASK];
    uint32_t pace = evict->pace + (uint32_t)PACE_TAKEN;

    if (evict->pace == 0 || how_ranked(&log->header) != SCORED) {
        return;
    }
    if (*lacks > 0) {
        --*lacks;
    } else {
        evict->pace = (uint16_t)(pace < PACE_MOST ? pace : PACE_MOST);
    }
}

void drip_log_set_level(drip_log_t *log)
{
    log_evict_t *evict = log_evict(log);
    int32_t mean;
    uint32_t c;

    for (c = 0; c <= CLASS_MASK; c++) {
        evict->floor[c] &= CLASS_MASK; /* what the victim did not have */
    }
    if (evict->pace == 0) {
        evict->pace = PACE_MOST;
    }
    if (evict->dropped > 0) {
        mean = (int32_t)(evict->ranks / evict->dropped * 8);
        evict->level = (uint16_t)(evict->level + (mean - evict->level) / 4);
    }
}

void drip_log_take_all(drip_log_t *log)
{
    memset(log->super.scratch, 0, sizeof(log->super.scratch));
}

void drip_log_clear_work(drip_log_t *log)
{
    log_evict_t *evict = log_evict(log);

    memset(&evict->dropped, 0, sizeof(*evict) - offsetof(log_evict_t, dropped));
}

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
    log->evict_fill = bucket > 0 ? room : 0; /* below the level nothing is worth a copy */
}

void drip_log_summarise(drip_log_t *log, uint32_t bucket)
{
    const drip_record_header_t *header = &log->header;
    drip_log_summary_t *summary = &log->copy.summary;
    uint8_t *count = &summary->classes[header->class_1 & CLASS_MASK][bucket >> QUARTER_SHIFT];
    uint32_t size = log_size_of(header);

    if (log_kind_of(header) == DRIP_RECORD_KIND_FRAME) {
        summary->bytes[bucket] += size;
        *count = (uint8_t)(*count + (*count < 255 && how_ranked(header) == SCORED));
        log->evict_fill = size > log->evict_fill ? size : log->evict_fill;
    } else if (log_kind_of(header) != DRIP_RECORD_KIND_GAP) {
        summary->bytes[BUCKET_COUNT - 1] += size;
    }
}

/* Is a frame one of those that its class keeps at least? */
static int is_floor(drip_log_t *log, uint32_t quarter)
{
    uint8_t *floor = &log_evict(log)->floor[log->header.class_1 & CLASS_MASK];

    if (log->config.class_floor == 0 || how_ranked(&log->header) != SCORED ||
        quarter < (uint32_t)*floor >> 6) {
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

int drip_log_survives(drip_log_t *log, uint32_t bucket)
{
    uint32_t size = log_size_of(&log->header);

    if (log->evict_room < size) {
        return 0;
    }
    if (log_kind_of(&log->header) != DRIP_RECORD_KIND_FRAME ||
        is_floor(log, bucket >> QUARTER_SHIFT) || bucket > log->evict_bucket) {
        return 1;
    }
    if (bucket < log->evict_bucket || log->evict_fill < size) {
        return 0;
    }
    log->evict_fill -= size;
    return 1;
}

/* The newest segment took records over from a victim: was it finished before power failed? */
static void settle_segments(drip_log_t *log)
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

void drip_log_settle_victim(drip_log_t *log)
{
    log_evict_t *evict = log_evict(log);

    settle_segments(log);
    drip_log_clear_work(log);
    if (evict->pace > 0) {
        evict->pace = (uint16_t)(evict->pace > PACE_MOUNT ? evict->pace - PACE_MOUNT : 1);
    }
}
