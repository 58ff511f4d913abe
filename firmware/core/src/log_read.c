/* Reading the log and acknowledging what was read. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

static uint64_t position_of(const drip_log_t *log, uint32_t segment)
{
    return (uint64_t)segment * drip_log_segment_bytes(log);
}

uint64_t drip_log_tail(const drip_log_t *log)
{
    return drip_log_usable(log) ? position_of(log, log->tail_segment) : 0;
}

static uint64_t end_at(const drip_log_t *log, uint32_t offset)
{
    if (!drip_log_usable(log)) {
        return 0;
    }
    return log->open ? position_of(log, log->next_segment - 1) + offset
                     : position_of(log, log->next_segment);
}

uint64_t drip_log_durable(const drip_log_t *log)
{
    return end_at(log, log->durable_offset);
}

uint64_t drip_log_end(const drip_log_t *log)
{
    return end_at(log, log->offset > log->durable_offset ? log->offset : log->durable_offset);
}

static uint32_t next_to_ack(const drip_log_t *log)
{
    return log->super.acked_segment > log->tail_segment ? log->super.acked_segment
                                                        : log->tail_segment;
}

uint64_t drip_log_acked(const drip_log_t *log)
{
    return drip_log_usable(log) ? position_of(log, next_to_ack(log)) : 0;
}

uint64_t drip_log_capacity(const drip_log_t *log)
{
    return drip_log_usable(log) ? position_of(log, log->super.segment_count) : 0;
}

/* What the header after a segment says about it. */
void drip_log_learn_closed(drip_log_t *log, uint32_t segment, const drip_segment_header_t *next)
{
    drip_log_closed_t *closed = &log->closed;

    closed->segment = segment;
    closed->bytes = drip_log_segment_bytes(log);
    closed->records = 0;
    closed->digest = 0;
    closed->unknown = 1;
    closed->valid = 1;
    if (next != NULL && drip_log_check_segment(next) == DRIP_ERR_OK &&
        next->segment == segment + 1 &&
        memcmp(next->log_uuid, log->super.log_uuid, sizeof(next->log_uuid)) == 0) {
        closed->records = next->previous_records;
        closed->digest = next->previous_digest;
        closed->unknown = (next->flags & DRIP_SEGMENT_PREVIOUS_UNKNOWN) != 0;
        if (next->previous_bytes <= closed->bytes) {
            closed->bytes = next->previous_bytes;
        }
    }
}

/* Is `closed` about this segment? The newest one is known without the card. */
int drip_log_know_closed(drip_log_t *log, uint32_t segment)
{
    if (segment + 1 == log->next_segment) {
        drip_log_note_closed(log);
    }
    return log->closed.valid && log->closed.segment == segment;
}

/* ---------------------------------------------------------------- read */

int drip_log_read(drip_log_t *log, uint64_t position, uint8_t *out, uint32_t size)
{
    uint32_t shift = 0;
    uint32_t high = (uint32_t)(position >> 32);
    uint32_t low = (uint32_t)position;
    uint32_t bytes = drip_log_segment_bytes(log);

    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    if (log->read_stage != READ_NONE) {
        return DRIP_ERR_BUSY;
    }
    if (low % DRIP_BLOCK_BYTES != 0 || size < DRIP_BLOCK_BYTES) {
        return DRIP_ERR_ARGUMENT;
    }
    if (position < drip_log_tail(log)) {
        return DRIP_ERR_GONE;
    }
    if (position >= drip_log_durable(log)) {
        return DRIP_ERR_RANGE;
    }
    while ((bytes >> shift) > 1) {
        shift++;
    }
    log->read_segment = (high << (32 - shift)) | (low >> shift);
    log->read_offset = low & (bytes - 1);
    log->read_out = out;
    log->read_size = size & ~(uint32_t)(DRIP_BLOCK_BYTES - 1);
    log->read_result = DRIP_ERR_BUSY;
    log->read_stage = READ_INFO;
    return DRIP_ERR_OK;
}

int drip_log_read_poll(const drip_log_t *log)
{
    return log->read_result;
}

static int read_end(drip_log_t *log, int result)
{
    log->read_result = result;
    log->read_stage = READ_NONE;
    return 1;
}

/* The open segment ends where it is durable, a closed one in zeros. */
static uint32_t read_limit(const drip_log_t *log, uint32_t *used)
{
    if (log->open && log->read_segment + 1 == log->next_segment) {
        *used = log->durable_offset;
        return log->durable_offset;
    }
    *used = log_align(log->closed.bytes, DRIP_BLOCK_BYTES);
    return drip_log_segment_bytes(log);
}

static int read_data(drip_log_t *log)
{
    uint32_t used;
    uint32_t limit = read_limit(log, &used);
    uint32_t size = log->read_size;
    uint32_t stored = 0;
    int result;

    if (log->read_offset >= limit) {
        return read_end(log, DRIP_ERR_RANGE);
    }
    size = size < limit - log->read_offset ? size : limit - log->read_offset;
    if (log->read_offset < used) {
        stored = size < used - log->read_offset ? size : used - log->read_offset;
    }
    memset(log->read_out + stored, 0, size - stored);
    log->read_size = size;
    if (stored == 0) {
        return read_end(log, (int)size);
    }
    log->read_stage = READ_DATA;
    result = drip_log_start_read(log, TASK_READ_DATA,
                                 drip_log_segment_block(log, log->read_segment) +
                                     log->read_offset / DRIP_BLOCK_BYTES,
                                 log->read_out, stored / DRIP_BLOCK_BYTES);
    return result < 0 ? read_end(log, result) : 1;
}

int drip_log_read_step(drip_log_t *log)
{
    int result;

    if (log->read_segment < log->tail_segment) {
        return read_end(log, DRIP_ERR_GONE);
    }
    if (log->open && log->read_segment + 1 == log->next_segment) {
        return read_data(log);
    }
    /* Asked each time: an ACK in between may have learnt about another segment. */
    if (drip_log_know_closed(log, log->read_segment)) {
        return read_data(log);
    }
    result = drip_log_start_read(
        log, TASK_READ_INFO, drip_log_segment_block(log, log->read_segment + 1), log->read_out, 1);
    return result < 0 ? read_end(log, result) : 1;
}

void drip_log_read_done(drip_log_t *log, int result)
{
    drip_segment_header_t header;

    if (log->read_stage == READ_INFO) {
        if (result == DRIP_ERR_OK) {
            memcpy(&header, log->read_out, sizeof(header));
        }
        drip_log_learn_closed(log, log->read_segment, result == DRIP_ERR_OK ? &header : NULL);
        return;
    }
    if (result == DRIP_ERR_OK) {
        /* It may have been overwritten while it was read. */
        result = log->read_segment < log->tail_segment ? DRIP_ERR_GONE : (int)log->read_size;
    }
    (void)read_end(log, result);
}

/* ---------------------------------------------------------------- acknowledge */

int drip_log_ack(drip_log_t *log, uint32_t segment, uint32_t records, uint32_t digest)
{
    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    if (log->ack_stage != ACK_NONE || log->append_stage != APPEND_NONE ||
        log->evict_stage != EVICT_NONE) {
        return DRIP_ERR_BUSY;
    }
    if (segment < log->super.acked_segment) {
        log->ack_result = DRIP_ERR_OK;
        return DRIP_ERR_OK;
    }
    if (segment != next_to_ack(log) || segment >= log->next_segment) {
        return DRIP_ERR_STATE;
    }
    log->ack_segment = segment;
    log->ack_records = records;
    log->ack_digest = digest;
    log->ack_result = DRIP_ERR_BUSY;
    log->ack_stage = ACK_FLUSH;
    return DRIP_ERR_OK;
}

int drip_log_ack_poll(const drip_log_t *log)
{
    return log->ack_result;
}

static void ack_end(drip_log_t *log, int result)
{
    log->ack_result = result;
    log->ack_stage = ACK_NONE;
}

static void ack_accept(drip_log_t *log)
{
    log->super.acked_segment = log->ack_segment + 1;
    if (log->super.acked_segment == log->next_segment) {
        log->open = 0;
    }
    if (log->config.full_mode != DRIP_FULL_STOP) {
        log->card = DRIP_CARD_READY;
    }
    ack_end(log, DRIP_ERR_OK);
}

static void ack_check(drip_log_t *log)
{
    const drip_log_closed_t *closed = &log->closed;

    if (closed->unknown || closed->records != log->ack_records ||
        closed->digest != log->ack_digest) {
        drip_log_scan_begin(log, log->ack_segment, DRIP_SEGMENT_HEADER_BYTES, closed->bytes, 0);
        log->ack_stage = ACK_SCAN;
        return;
    }
    ack_accept(log);
}

static void ack_scanned(drip_log_t *log)
{
    if (!log->scan_failed &&
        (log->scan_records != log->ack_records || log->scan_digest != log->ack_digest)) {
        ack_end(log, DRIP_ERR_DIGEST);
        return;
    }
    ack_accept(log);
}

int drip_log_ack_step(drip_log_t *log)
{
    int result;

    if (log->ack_stage == ACK_FLUSH) {
        /* Records that the host cannot have read count in the digest; and the block is needed. */
        (void)drip_log_sync(log);
        log->ack_stage = ACK_INFO;
    } else if (log->ack_stage == ACK_INFO) {
        if (drip_log_know_closed(log, log->ack_segment)) {
            ack_check(log);
            return 1;
        }
        result = drip_log_start_read(
            log, TASK_ACK_INFO, drip_log_segment_block(log, log->ack_segment + 1), &log->block, 1);
        if (result < 0) {
            ack_end(log, result);
        }
    } else if (log->ack_stage == ACK_SCAN && !drip_log_scan_step(log, TASK_ACK_SCAN)) {
        ack_scanned(log);
    }
    return 1;
}

void drip_log_ack_done(drip_log_t *log, uint8_t task, int result)
{
    if (task == TASK_ACK_SCAN) {
        drip_log_scan_done(log, result);
        return;
    }
    drip_log_learn_closed(log, log->ack_segment,
                          result == DRIP_ERR_OK ? &log->block.segment : NULL);
    /* At once: a READ in between would learn about another segment. */
    ack_check(log);
}
