#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

uint32_t drip_log_segment_bytes(const drip_log_t *log)
{
    return log->super.segment_blocks * DRIP_BLOCK_BYTES;
}

uint32_t drip_log_segment_block(const drip_log_t *log, uint32_t segment)
{
    uint32_t slot = segment % log->super.segment_count;

    return log->first_block + log->super.data_block + slot * log->super.segment_blocks;
}

uint32_t drip_log_record_seed(const drip_log_t *log, uint32_t segment)
{
    uint32_t crc = drip_crc32(0, log->super.log_uuid, sizeof(log->super.log_uuid));

    return drip_crc32(crc, &segment, sizeof(segment));
}

uint32_t drip_log_advance(uint32_t offset, uint32_t bytes)
{
    for (;;) {
        uint32_t room;

        offset = log_skip(offset);
        room = LOG_AREA_BYTES - offset % LOG_AREA_BYTES;
        if (bytes <= room) {
            return offset + bytes;
        }
        bytes -= room;
        offset += room;
    }
}

void drip_log_fail(drip_log_t *log, int error)
{
    log->card = error == DRIP_ERR_NO_CARD     ? DRIP_CARD_ABSENT
                : error == DRIP_ERR_PROTECTED ? DRIP_CARD_PROTECTED
                                              : DRIP_CARD_ERROR;
    log->last_error = error;
    log->task = TASK_NONE;
    log->stage = MOUNT_NONE;
    log->append_stage = APPEND_NONE;
    log->evict_stage = EVICT_NONE;
    log->sync_wanted = 0;
    if (log->read_stage != READ_NONE) {
        log->read_stage = READ_NONE;
        log->read_result = error;
    }
    if (log->ack_stage != ACK_NONE) {
        log->ack_stage = ACK_NONE;
        log->ack_result = error;
    }
}

void drip_log_note_failed(drip_log_t *log, uint8_t task, int error)
{
    uint32_t segment = log->next_segment - (task == TASK_HEADER ? 0u : 1u);
    uint8_t copy = log->super.generation & 1;

    if (error == DRIP_ERR_NO_CARD || error == DRIP_ERR_PROTECTED) {
        return;
    }
    if (task == TASK_FLUSH || task == TASK_DIRECT || task == TASK_HEADER) {
        if (segment != log->failed_segment) {
            log->failed_segment = segment;
            log->segment_fails = 0;
        }
        log->segment_fails = (uint8_t)(log->segment_fails + (log->segment_fails < LOG_TRIES));
    } else if (task == TASK_SUPER || task == TASK_CHECKPOINT) {
        if ((log->super_fails & 1) != copy) {
            log->super_fails = copy;
        }
        log->super_fails =
            (uint8_t)(log->super_fails + (log->super_fails >> 1 < LOG_TRIES ? 2 : 0));
    }
}

static int started(drip_log_t *log, uint8_t task, int result)
{
    if (result >= 0) {
        log->task = task;
        return DRIP_ERR_OK;
    }
    log->errors++;
    log->last_error = result;
    return result;
}

int drip_log_start_read(drip_log_t *log, uint8_t task, uint32_t block, void *out, uint32_t count)
{
    const drip_port_t *port = log->port;

    return started(log, task, port->card_read(port->context, block, out, count));
}

int drip_log_start_write(drip_log_t *log, uint8_t task, uint32_t block, const void *data,
                         uint32_t count)
{
    const drip_port_t *port = log->port;
    int result = started(log, task, port->card_write(port->context, block, data, count));

    if (result < 0) {
        drip_log_note_failed(log, task, result);
        drip_log_fail(log, result);
    }
    return result;
}

int drip_log_streams(drip_log_t *log, const drip_stream_t *streams, uint32_t count)
{
    if (count > DRIP_MAX_STREAMS) {
        return DRIP_ERR_ARGUMENT;
    }
    memset(log->streams, 0, sizeof(log->streams));
    if (count > 0) {
        memcpy(log->streams, streams, count * sizeof(streams[0]));
    }
    log->stream_count = (uint8_t)count;
    return DRIP_ERR_OK;
}

void drip_log_configure(drip_log_t *log, const drip_log_config_t *config)
{
    log->config = *config;
}

void drip_log_note_closed(drip_log_t *log)
{
    log->closed.segment = log->next_segment - 1;
    /* Where records may be that could not be read, nothing is given out as unused. */
    log->closed.bytes = log->unknown ? drip_log_segment_bytes(log) : log->offset;
    log->closed.records = log->records;
    log->closed.digest = log->digest;
    log->closed.unknown = log->unknown;
    log->closed.valid = log->next_segment > 0;
}

/* ---------------------------------------------------------------- sync */

int drip_log_flush(drip_log_t *log)
{
    uint8_t *block = log->block.bytes;

    memset(block + log->block_fill, 0, DRIP_BLOCK_BYTES - log->block_fill);
    return drip_log_start_write(
        log, TASK_FLUSH, drip_log_segment_block(log, log->next_segment - 1) + log->block_number,
        block, 1);
}

/* Only the record that is being appended can be left. */
static void set_pending(drip_log_t *log, uint32_t pending)
{
    log->pending = pending;
    log->pending_notes =
        pending > 0 && log->header.flags >> DRIP_RECORD_KIND_SHIFT != DRIP_RECORD_KIND_FRAME;
    log->oldest_pending_us = log->port->time_us(log->port->context);
}

void drip_log_mark_durable(drip_log_t *log, uint32_t pending)
{
    log->durable_offset = log->offset;
    set_pending(log, pending);
}

int drip_log_busy(const drip_log_t *log)
{
    return log->append_stage != APPEND_NONE;
}

int drip_log_sync(drip_log_t *log)
{
    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    if (!log->sync_wanted) { /* else the end moves, and with it what fits */
        drip_log_start_gap(log, 0);
    }
    log->sync_wanted = log->pending > 0;
    return DRIP_ERR_OK;
}

uint32_t drip_log_pending(const drip_log_t *log)
{
    return log->pending;
}

uint32_t drip_log_lost(const drip_log_t *log)
{
    return log->lost;
}

uint32_t drip_log_evicted(const drip_log_t *log)
{
    return log->evicted;
}

static void sync_step(drip_log_t *log)
{
    if (log->block_fill > 0) {
        (void)drip_log_flush(log);
        return;
    }
    log->sync_wanted = 0;
    if (log_gap_pending(log)) {
        memset(&log->gap, 0, sizeof(log->gap)); /* nothing was counted meanwhile */
        memset(log->super.untold, 0, sizeof(log->super.untold));
        log->refound = 0;
        log->gaps++;
    }
    drip_log_mark_durable(log, 0);
}

static void commit_if_due(drip_log_t *log)
{
    uint64_t now;

    if (log->pending > 0 && log->append_stage == APPEND_NONE && log->evict_stage == EVICT_NONE &&
        !log->sync_wanted) {
        now = log->port->time_us(log->port->context);
        if (now - log->oldest_pending_us >= (uint64_t)log->config.commit_ms * 1000) {
            log->sync_wanted = 1;
        }
    }
}

/* ---------------------------------------------------------------- step */

static void flushed(drip_log_t *log)
{
    log->block_number++;
    if (log->block_fill < DRIP_BLOCK_BYTES) {
        log->offset = log->block_number * DRIP_BLOCK_BYTES;
    }
    log->block_fill = 0;
}

/* A full block is never written again: what it ends is durable, what only begins in it is not. */
static void block_done(drip_log_t *log)
{
    if (log->append_stage == APPEND_COPY) {
        log->durable_offset = log_align(log->offset, DRIP_BLOCK_BYTES);
        set_pending(log, 1);
    }
}

static void write_done(drip_log_t *log, uint8_t task)
{
    if (task == TASK_FLUSH) {
        flushed(log);
        block_done(log);
    } else if (task == TASK_DIRECT) {
        log->block_number += log->direct;
        log->cursor += log->direct * DRIP_BLOCK_BYTES;
        block_done(log);
    } else if (task == TASK_HEADER) {
        drip_log_header_written(log);
    } else {
        drip_log_super_written(log);
        if (log->append_stage == APPEND_SUPER) {
            log->append_stage = APPEND_HEADER;
        }
        if (log->evict_stage == EVICT_SUPER) {
            log->evict_stage = EVICT_INFO;
        }
    }
}

static void transfer_done(drip_log_t *log, int result)
{
    uint8_t task = log->task;

    log->task = TASK_NONE;
    if (result < 0) {
        log->errors++;
        log->last_error = result;
        drip_log_note_failed(log, task, result);
    }
    if (result == DRIP_ERR_NO_CARD) {
        drip_log_fail(log, result);
    } else if (log->stage != MOUNT_NONE) {
        drip_log_mount_done(log, result);
    } else if (task == TASK_READ_INFO || task == TASK_READ_DATA) {
        drip_log_read_done(log, result);
    } else if (task == TASK_WITNESS) {
        drip_log_witness_done(log, result);
    } else if (task == TASK_EVICT) {
        drip_log_evict_done(log, result);
    } else if (task == TASK_ACK_INFO || task == TASK_ACK_SCAN) {
        drip_log_ack_done(log, task, result);
    } else if (result < 0) {
        drip_log_fail(log, result);
    } else {
        write_done(log, task);
    }
}

int drip_log_step(drip_log_t *log)
{
    int result;

    if (log->task != TASK_NONE) {
        result = log->port->card_poll(log->port->context);
        if (result != DRIP_ERR_BUSY) {
            transfer_done(log, result < 0 ? result : DRIP_ERR_OK);
        }
        return 1;
    }
    if (log->stage != MOUNT_NONE) {
        return drip_log_mount_step(log);
    }
    if (!drip_log_usable(log)) {
        return 0;
    }
    commit_if_due(log);
    if (drip_log_super_due(log)) {
        (void)drip_log_start_super(log);
        return 1;
    }
    log->read_turn ^= 1;
    if (log->read_stage != READ_NONE &&
        (log->read_turn ||
         (!drip_log_busy(log) && !log->sync_wanted && log->evict_stage == EVICT_NONE))) {
        return drip_log_read_step(log);
    }
    if (log->evict_stage != EVICT_NONE) {
        drip_log_evict_step(log);
        return 1;
    }
    if (drip_log_busy(log)) {
        drip_log_append_step(log);
    } else if (log->sync_wanted) {
        sync_step(log);
    } else if (log->ack_stage != ACK_NONE) {
        return drip_log_ack_step(log);
    }
    return (log->append_stage | log->sync_wanted | log->read_stage | log->ack_stage | log->task) !=
           0;
}
