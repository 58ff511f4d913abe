/* Superblocks: when they are written, the checkpoint in them, and doing without any. */
#include "drip/log.h"

#include <stddef.h>
#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum {
    REBUILD_PROBES = 17, /* erase units of up to 2^16 blocks */
    USUAL_UNIT = 13,     /* 4 MiB */
};

/* Of `untold`, which holds the first members of a GAP record. */
enum { CARD = 1, COUNTS = 4 };

_Static_assert(sizeof(drip_record_gap_t) == 2 * COUNTS * sizeof(uint32_t), "counts, then times");

/* What may or may not be on the card. */
enum { UNSURE_SUPER = 1, UNSURE_GAP };

/* While a log is mounted: what its superblock said before, or the GAP record that may be on the card. */
static void *kept(drip_log_t *log)
{
    return (uint8_t *)&log->gap + offsetof(drip_record_gap_t, first_us);
}

static uint16_t which(const drip_log_t *log)
{
    return (uint16_t)(drip_log_record_seed(log, 0) | 1); /* never as before the first mount */
}

void drip_log_keep_untold(drip_log_t *log)
{
    const void *from = log->super.untold;

    log->gap.card -= log->refound;
    if (log->boot_id == 0) {
        return; /* the last mount did not get there */
    }
    log->kept_log = which(log);
    log->kept_gaps = (uint16_t)log->gaps;
    if (log_gap_pending(log)) {
        from = &log->gap;
        log->unsure = UNSURE_GAP;
    } else if (log->unsure) {
        memset(log->super.untold, 0, sizeof(log->super.untold));
    }
    memcpy(kept(log), from, COUNTS * sizeof(uint32_t));
}

void drip_log_take_untold(drip_log_t *log)
{
    const drip_superblock_t *super = &log->super;
    uint32_t *gap = (uint32_t *)(void *)&log->gap;
    int same = log->kept_log == which(log);
    int hidden = log->next_segment - log->copy.head.segment > 1; /* a GAP record may be */
    uint32_t was[COUNTS];
    uint32_t i;

    if (hidden && log->gaps < super->gaps) {
        log->gaps = super->gaps; /* the next mount may be able to read that header */
    }
    memcpy(was, kept(log), sizeof(was));
    log->gap.first_us = 0; /* the times of an earlier boot; what it counts has not changed */
    if (same && (hidden || (int16_t)(log->gaps - log->kept_gaps) <= 0)) {
        return; /* memory knows best */
    }
    for (i = 0; i < COUNTS; i++) {
        if (same || log->unsure != UNSURE_GAP) {
            gap[i] -= was[i]; /* it was told, or stays with the other card */
        }
        if (!hidden && log->gaps == super->gaps) {
            gap[i] += super->untold[i];
        }
    }
}

int drip_log_start_super(drip_log_t *log)
{
    drip_superblock_t *super = &log->super;

    /* No number is given out before it is reserved, so none is given out twice. */
    super->next_seq = log->next_seq + LOG_RESERVE_SEGMENTS * log_reserve(log);
    if (log->stage == MOUNT_NONE && super->next_segment != log->next_segment) {
        super->witness = 0; /* the header has been written */
    }
    super->next_segment = log->next_segment;
    super->tail_segment = log->tail_segment;
    memcpy(super->untold, &log->gap, sizeof(super->untold));
    super->untold[CARD] -= log->refound;
    super->gaps = log->gaps;
    log->unsure = UNSURE_SUPER;
    /* Even generations live in the first erase unit, odd ones in the last: the copy that is not being
     * written stays whole. */
    super->generation++;
    if (log->super_fails >> 1 >= LOG_TRIES && (log->super_fails & 1) == (super->generation & 1)) {
        super->generation++; /* this copy cannot be written: the other one has to do */
    }
    drip_log_seal_super(super);
    return drip_log_start_write(log, TASK_SUPER,
                                log->first_block +
                                    ((log->super.generation & 1) != 0 ? log->region_blocks - 1 : 0),
                                &log->super, 1);
}

void drip_log_super_written(drip_log_t *log)
{
    log->super_us = log->port->time_us(log->port->context);
    log->acked_durable = log->super.acked_segment;
    log->checkpoint_due = 0;
    log->unsure = 0;
}

int drip_log_super_due(const drip_log_t *log)
{
    uint64_t age = log->port->time_us(log->port->context) - log->super_us;

    /* While a segment is evicted its successor does not count, and not before its GAP record is durable. */
    if (log->evict_stage != EVICT_NONE || log->pending_notes > 0) {
        return 0;
    }
    /* A host that has taken everything is done: that is noted at once, and once per segment. */
    if (log->super.acked_segment == log->next_segment &&
        log->super.acked_segment != log->acked_durable) {
        return 1;
    }
    if (age < LOG_SUPER_US) {
        return 0;
    }
    return log->super.next_segment != log->next_segment ||
           log->super.acked_segment != log->acked_durable ||
           (log->checkpoint_due && age >= LOG_CHECKPOINT_US);
}

int drip_log_checkpoint_set(drip_log_t *log, const uint8_t *bytes, uint32_t length)
{
    drip_superblock_t *super = &log->super;

    if (length > sizeof(super->checkpoint)) {
        return DRIP_ERR_ARGUMENT;
    }
    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    if (log->task == TASK_SUPER || log->task == TASK_CHECKPOINT) {
        return DRIP_ERR_BUSY;
    }
    memset(super->checkpoint, 0, sizeof(super->checkpoint));
    if (length > 0) {
        memcpy(super->checkpoint, bytes, length);
    }
    super->checkpoint_bytes = length;
    log->checkpoint_due = 1;
    return DRIP_ERR_OK;
}

int drip_log_checkpoint_get(const drip_log_t *log, uint8_t *out, uint32_t size)
{
    uint32_t length = log->super.checkpoint_bytes;

    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    if (length > size) {
        return DRIP_ERR_ARGUMENT;
    }
    if (length > 0) {
        memcpy(out, log->super.checkpoint, length);
    }
    return (int)length;
}

int drip_log_checkpoint_write(drip_log_t *log)
{
    int result;

    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    /* Between two pieces of work `super` says what is on the card. */
    if (log->task != TASK_NONE || log->append_stage != APPEND_NONE || log->sync_wanted ||
        log->ack_stage != ACK_NONE || log->evict_stage != EVICT_NONE || log->pending_notes > 0) {
        return DRIP_ERR_BUSY;
    }
    result = drip_log_start_super(log);
    if (result == DRIP_ERR_OK) {
        log->task = TASK_CHECKPOINT;
    }
    return result;
}

int drip_log_checkpoint_poll(const drip_log_t *log)
{
    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    return log->task == TASK_CHECKPOINT ? DRIP_ERR_BUSY : DRIP_ERR_OK;
}

/* Without superblocks: the first segment starts at a unit boundary, and its header tells the rest. */
int drip_log_rebuild_step(drip_log_t *log)
{
    uint32_t block;

    while (log->probe_step <= REBUILD_PROBES) {
        uint32_t unit = log->probe_step == 0 ? (uint32_t)USUAL_UNIT : log->probe_step - 1;

        block = log_align(log->first_block + 1, 1u << unit);
        log->probe_step++;
        if (block > log->first_block && block - log->first_block < log->region_blocks) {
            log->scan = block;
            return drip_log_mount_read(log, block);
        }
    }
    return drip_log_foreign(log);
}

void drip_log_rebuild_done(drip_log_t *log, int result)
{
    const drip_segment_header_t *header = &log->block.segment;
    drip_superblock_t *super = &log->super;

    if (result != DRIP_ERR_OK || drip_log_check_segment(header) != DRIP_ERR_OK) {
        return;
    }
    memset(super, 0, sizeof(*super));
    memcpy(super->log_uuid, header->log_uuid, sizeof(super->log_uuid));
    super->unit_blocks = header->unit_blocks;
    super->segment_blocks = header->segment_bytes / DRIP_BLOCK_BYTES;
    super->segment_count = header->segment_count;
    super->data_block = header->data_block;
    super->region_blocks = header->region_blocks;
    super->next_segment = header->segment + 1;
    super->acked_segment = header->acked_segment;
    super->next_seq = header->first_seq > header->next_seq ? header->first_seq : header->next_seq;
    super->boot_id = header->boot_id;
    drip_log_seal_super(super);
    if (drip_log_check_super(super, log->region_blocks) != DRIP_ERR_OK ||
        drip_log_segment_block(log, header->segment) != log->scan) {
        return;
    }
    log->region_blocks = super->region_blocks;
    log->next_segment = super->next_segment;
    /* The newest segment may be anywhere: halving finds it in half the reads of doubling first. */
    log->probe_step = log_half(super->segment_count);
    log->probe_back = 1;
    log->stage = MOUNT_PROBE;
}
