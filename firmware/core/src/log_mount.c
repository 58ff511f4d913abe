/* Mounting: find the newest superblock and the newest segment, and scan that for its records. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum {
    BOOTS_PER_REBUILD = 16, /* boots that may have left no segment behind */
    ASKED_TWICE = 2,        /* for the segment behind the newest */
    HEAD_TWICE = 3,         /* and for the header of the newest */
};

int drip_log_mount(drip_log_t *log, const drip_port_t *port, const drip_log_config_t *config,
                   uint32_t first_block, uint32_t blocks)
{
    drip_stream_t streams[DRIP_MAX_STREAMS];
    uint8_t stream_count = log->stream_count;
    uint32_t errors = log->errors;
    uint32_t pending = log->pending - log->pending_notes; /* frames */
    uint32_t lost = log->lost + pending;
    uint32_t evicted = log->evicted;
    drip_record_gap_t gap = log->gap;
    uint32_t failed_segment = log->failed_segment;
    uint8_t segment_fails = log->segment_fails;
    uint8_t super_fails = log->super_fails;

    memcpy(streams, log->streams, sizeof(streams));
    memset(log, 0, sizeof(*log));
    memcpy(log->streams, streams, sizeof(streams));
    log->stream_count = stream_count;
    log->errors = errors;
    log->lost = lost;
    log->evicted = evicted;
    log->failed_segment = failed_segment;
    log->segment_fails = segment_fails;
    log->super_fails = super_fails;
    /* They are of an earlier boot now; what they count has not changed. */
    gap.card += pending;
    gap.first_us = 0;
    log->gap = gap;
    log->port = port;
    log->config = *config;
    log->first_block = first_block;
    log->region_blocks = blocks;
    log->card = DRIP_CARD_MOUNTING;
    log->stage = MOUNT_SIZE;
    return DRIP_ERR_OK;
}

void drip_log_place(drip_log_t *log, const drip_volume_place_t *place)
{
    log->place = *place;
}

void drip_log_refuse(drip_log_t *log, uint8_t card, int error)
{
    log->errors += card == DRIP_CARD_ERROR ? 1u : 0u;
    log->last_error = error;
    log->card = card;
    log->stage = MOUNT_NONE;
}

int drip_log_foreign(drip_log_t *log)
{
    log->card = DRIP_CARD_FOREIGN;
    log->stage = MOUNT_NONE;
    return 0;
}

int drip_log_mount_read(drip_log_t *log, uint32_t block)
{
    int result = drip_log_start_read(log, TASK_MOUNT, block, &log->block, 1);

    if (result < 0) {
        drip_log_fail(log, result);
    }
    return 1;
}

static int size_step(drip_log_t *log)
{
    uint32_t total = 0;
    int result = log->port->card_blocks(log->port->context, &total);

    if (result == DRIP_ERR_BUSY) {
        return 1;
    }
    if (result < 0) {
        drip_log_fail(log, result);
        return 0;
    }
    if (log->first_block >= total) {
        return drip_log_foreign(log);
    }
    total -= log->first_block;
    if (log->region_blocks == 0 || log->region_blocks > total) {
        log->region_blocks = total;
    }
    log->stage = MOUNT_SUPER_A;
    return 1;
}

/* ---------------------------------------------------------------- superblocks */

static void super_done(drip_log_t *log, int result)
{
    const drip_superblock_t *found = &log->block.super;
    uint8_t copy = log->stage == MOUNT_SUPER_A ? 1 : 2;

    if (result == DRIP_ERR_OK) {
        result = drip_log_check_super(found, log->region_blocks);
    }
    if (result == DRIP_ERR_OK && copy == 2 && found->region_blocks != log->region_blocks) {
        result = DRIP_ERR_CORRUPT;
    }
    if (result == DRIP_ERR_OK) {
        if (log->supers == 0 || (int32_t)(found->generation - log->super.generation) > 0) {
            log->super = *found;
        }
        log->supers |= copy;
        log->region_blocks = log->super.region_blocks;
    } else {
        log->damaged++;
        log->last_error = result;
    }
    log->next_segment = log->super.next_segment;
    log->probe_step = copy == 1 || log->supers != 0 ? 2 : 0;
    log->stage = copy == 1 ? MOUNT_SUPER_B : log->supers != 0 ? MOUNT_PROBE : MOUNT_REBUILD;
}

/* ---------------------------------------------------------------- newest segment */

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
    log->stage = log->next_segment == 0 ? MOUNT_WRITE : MOUNT_HEAD;
    if (log->next_segment >= count && log->tail_segment == log->next_segment - count &&
        log->tail_segment < log->super.acked_segment) {
        log->stage = MOUNT_TAIL;
    }
    return 1;
}

/* The oldest segment was free to be overwritten: power may have failed in the middle of that. */
static void tail_done(drip_log_t *log, int result)
{
    if (result != DRIP_ERR_OK || !is_segment(log, log->tail_segment)) {
        log->tail_segment++;
    }
    log->stage = MOUNT_HEAD;
}

/* Doubles the step while segments are found, then halves it. The first step is two, so that one
 * damaged header does not hide the segment after it. */
static int probe_step(drip_log_t *log)
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

static void probe_done(drip_log_t *log, int result)
{
    uint32_t segment = log->next_segment - 1 + log->probe_step;

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
    log->block_number = 0;
    log->stage = MOUNT_MARK;
}

static void head_done(drip_log_t *log, int result)
{
    const drip_segment_header_t *header = &log->block.segment;

    log->open = 0;
    if (result == DRIP_ERR_OK && is_segment(log, log->next_segment - 1)) {
        log->open = 1;
        log->scan_seq = header->first_seq;
        log->evict_need = header->boot_id;
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
static void next_done(drip_log_t *log, int result)
{
    drip_record_header_t first;
    uint64_t seq = log->copy.head.next_seq;

    seq = seq > log->scan_seq ? seq : log->scan_seq;
    memcpy(&first, log->block.bytes, sizeof(first));
    if (result == DRIP_ERR_OK && drip_log_is_header(log, log->next_segment, &first, seq + 1)) {
        log->next_segment++;
        log->open = 0;
        log->damaged++;
    }
    begin_marks(log);
}

/* ---------------------------------------------------------------- end */

/* Writes to a place fail again and again: nothing more is tried there. */
static void go_around(drip_log_t *log)
{
    uint32_t count = log->super.segment_count;

    if (log->segment_fails < LOG_TRIES) {
        return;
    }
    if (log->failed_segment + 1 == log->next_segment && log->open) {
        log->open = 0;
        log->damaged++;
    } else if (log->failed_segment == log->next_segment &&
               drip_log_slot_free(log, log->next_segment) && log->next_segment < LOG_MAX_SEGMENT) {
        log->next_segment++;
        log->open = 0;
        log->unknown = 1;
        log->records = 0;
        log->digest = 0;
        log->damaged++;
        if (log->next_segment > count && log->tail_segment < log->next_segment - count) {
            log->tail_segment = log->next_segment - count;
        }
    }
}

static int write_step(drip_log_t *log)
{
    uint64_t seq = log->scan_seq;

    if (log->boot_id == 0) {
        /* Numbers may be in use that no block speaks of: the last superblock may be lost. */
        log->boot_id = log->super.boot_id + (log->supers == 3 ? 1 : 2);
        log->boot_id += log->supers == 0 ? BOOTS_PER_REBUILD : 0;
        seq = seq > log->super.next_seq ? seq : log->super.next_seq;
        log->next_seq = log->super.next_seq > 1 || log->next_segment > 0
                            ? seq + LOG_RESERVE_SEGMENTS * log_reserve(log)
                            : seq;
        log->super.boot_id = log->boot_id;
        log->super.volume_serial = log->place.serial;
        log->super.volume_cluster = log->place.cluster;
        log->super.volume_blocks = log->place.blocks;
        log->super.volume_check = log->place.check;
        if (log->super.acked_segment >= log->next_segment) {
            log->open = 0;
        }
        go_around(log);
    }
    (void)drip_log_start_super(log);
    return 1;
}

static void write_done(drip_log_t *log, int result)
{
    if (result < 0) {
        drip_log_fail(log, result);
        return;
    }
    if (log->supers == 0) {
        log->supers = 3; /* both are gone: write the other copy, too */
        return;
    }
    drip_log_super_written(log);
    log->stage = MOUNT_NONE;
    log->card = DRIP_CARD_READY;
    log->gap.damaged += log->damaged;
}

int drip_log_mount_step(drip_log_t *log)
{
    switch (log->stage) {
    case MOUNT_SIZE:
        return size_step(log);
    case MOUNT_SUPER_A:
        return drip_log_mount_read(log, log->first_block);
    case MOUNT_SUPER_B:
        return drip_log_mount_read(log, log->first_block + log->region_blocks - 1);
    case MOUNT_REBUILD:
        return drip_log_rebuild_step(log);
    case MOUNT_PROBE:
        return probe_step(log);
    case MOUNT_TAIL:
        return drip_log_mount_read(log, drip_log_segment_block(log, log->tail_segment));
    case MOUNT_HEAD:
        return drip_log_mount_read(log, drip_log_segment_block(log, log->next_segment - 1));
    case MOUNT_NEXT:
        return drip_log_mount_read(log, drip_log_segment_block(log, log->next_segment) + 1);
    case MOUNT_MARK:
        return drip_log_mark_step(log);
    case MOUNT_SCAN:
        if (!drip_log_scan_step(log, TASK_MOUNT) && !drip_log_look_again(log)) {
            drip_log_found_end(log);
            drip_log_settle_victim(log);
            log->stage = MOUNT_WRITE;
        }
        return 1;
    default:
        return write_step(log);
    }
}

void drip_log_mount_done(drip_log_t *log, int result)
{
    switch (log->stage) {
    case MOUNT_SUPER_A:
    case MOUNT_SUPER_B:
        super_done(log, result);
        break;
    case MOUNT_REBUILD:
        drip_log_rebuild_done(log, result);
        break;
    case MOUNT_PROBE:
        probe_done(log, result);
        break;
    case MOUNT_TAIL:
        tail_done(log, result);
        break;
    case MOUNT_HEAD:
        head_done(log, result);
        break;
    case MOUNT_NEXT:
        next_done(log, result);
        break;
    case MOUNT_MARK:
        drip_log_mark_done(log, result);
        break;
    case MOUNT_SCAN:
        if (result < 0) {
            /* It may be readable another time: leave it alone and go on behind it. */
            log->damaged++;
            log->unknown = 1;
            log->open = 0;
        }
        drip_log_scan_done(log, result);
        break;
    default:
        write_done(log, result);
    }
}
