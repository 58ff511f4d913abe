/* Mounting: find the newest superblock and the newest segment (log_newest.c), scan that for its records, and
 * write a superblock. */
#include "drip/log.h"

#include <stddef.h>
#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum {
    BOOTS_PER_REBUILD = 16, /* boots that may have left no segment behind */
};

int drip_log_mount(drip_log_t *log, const drip_port_t *port, const drip_log_config_t *config,
                   uint32_t first_block, uint32_t blocks)
{
    uint32_t pending = log->pending - log->pending_notes; /* frames */

    drip_log_keep_untold(log);
    log->gap.card += pending;
    log->lost += pending;
    memset(log, 0, offsetof(drip_log_t, gap));
    memset(&log->super, 0, sizeof(*log) - offsetof(drip_log_t, super));
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
    /* Where nothing could be read, there may be a log. */
    log->card = log->last_error < DRIP_ERR_BUSY ? DRIP_CARD_ERROR : DRIP_CARD_FOREIGN;
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

/* ---------------------------------------------------------------- end */

/* Writes to a place fail again and again: nothing more is tried there. */
static void go_around(drip_log_t *log)
{
    if (log->segment_fails < LOG_TRIES) {
        return;
    }
    if (log->failed_segment == log->next_segment && drip_log_slot_free(log, log->next_segment) &&
        log->next_segment < LOG_MAX_SEGMENT) {
        log->next_segment++;
        log->unknown = 1;
        log->records = 0;
        log->digest = 0;
    } else if (log->failed_segment + 1 != log->next_segment || !log->open) {
        return;
    }
    log->open = 0;
    log->damaged++;
}

static int write_step(drip_log_t *log)
{
    uint64_t seq = log->scan_seq;
    uint32_t count = log->super.segment_count;
    uint32_t reserves;
    uint32_t next;

    if (log->boot_id == 0) {
        /* Numbers may be in use that no block speaks of: the last superblock may be lost. */
        log->boot_id = log->super.boot_id + (log->supers == 3 ? 1 : 2);
        reserves = log->boot_id - log->super.boot_id; /* a boot uses up two at most */
        if (log->supers == 0) {
            log->boot_id += BOOTS_PER_REBUILD;
            reserves = 2 * BOOTS_PER_REBUILD;
        }
        seq = seq > log->super.next_seq ? seq : log->super.next_seq;
        log->next_seq = log->super.next_seq > 1 || log->next_segment > 0
                            ? seq + reserves * LOG_RESERVE_SEGMENTS * log_reserve(log)
                            : seq;
        log->super.boot_id = log->boot_id;
        log->super.volume_serial = log->place.serial;
        log->super.volume_cluster = log->place.cluster;
        log->super.volume_blocks = log->place.blocks;
        log->super.volume_check = log->place.check;
        if (log->super.acked_segment >= log->next_segment) {
            log->open = 0;
        }
        next = log->next_segment;
        drip_log_take_untold(log);
        go_around(log);
        if (log->gap.damaged < log->damaged) {
            log->gap.damaged = log->damaged; /* the superblock may speak of the same */
        }
        /* What the slots cannot hold is gone, whatever a header says. */
        if (log->next_segment > count && log->tail_segment < log->next_segment - count) {
            log->tail_segment = log->next_segment - count;
        }
        log->super.witness = log->next_segment == next ? log->evict_room & 0xffff : 0;
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
    if (log->supers != 3) {
        log->supers = 3; /* each copy has to know the numbers of this boot */
        return;
    }
    drip_log_super_written(log);
    log->probe_step = 0;
    log->stage = MOUNT_NONE;
    log->card = DRIP_CARD_READY;
}

static void settle(drip_log_t *log)
{
    uint32_t next = log->next_segment;

    drip_log_settle_victim(log);
    if (log->next_segment != next) {
        /* Of another place. What is lost in a segment that is forgotten the next mount is to find, too. */
        log->evict_room = log->damaged; /* no block is likely to have that */
    }
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
        return drip_log_probe_step(log);
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
            drip_log_witness_judge_header(log);
            settle(log);
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
        drip_log_probe_done(log, result);
        break;
    case MOUNT_TAIL:
        drip_log_tail_done(log, result);
        break;
    case MOUNT_HEAD:
        drip_log_head_done(log, result);
        break;
    case MOUNT_NEXT:
        drip_log_next_done(log, result);
        break;
    case MOUNT_MARK:
        drip_log_mark_done(log, result);
        break;
    case MOUNT_SCAN:
        drip_log_witness_seen(log, log->scan_block, result);
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
