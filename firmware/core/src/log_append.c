/* Appending a record: checksum, a new segment when it needs one, then header and payload. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

/* Bytes of payload that one step takes the checksum of: bounds the step. */
enum { CRC_STEP_BYTES = 2048 };

static uint32_t record_bytes(const drip_record_header_t *header)
{
    return log_align(DRIP_RECORD_HEADER_BYTES + header->payload_bytes, DRIP_RECORD_ALIGN);
}

static int fits(const drip_log_t *log, const drip_record_header_t *header)
{
    return log->open &&
           drip_log_advance(log->offset, record_bytes(header)) <= drip_log_segment_bytes(log);
}

int drip_log_slot_free(const drip_log_t *log, uint32_t segment)
{
    uint32_t before = segment - log->super.segment_count;

    return segment < log->super.segment_count || before < log->tail_segment ||
           (log->config.full_mode != DRIP_FULL_STOP && before < log->super.acked_segment);
}

static int evicts(const drip_log_t *log)
{
    return log->config.full_mode == DRIP_FULL_EVICT && log->super.segment_count >= 3 &&
           log->next_segment < LOG_MAX_SEGMENT;
}

/* May the next segment be opened, that is: is what it would overwrite free? A log that evicts keeps one
 * slot free for what survives. */
int drip_log_can_open(const drip_log_t *log)
{
    return log->next_segment < LOG_MAX_SEGMENT && drip_log_slot_free(log, log->next_segment) &&
           (!evicts(log) || drip_log_slot_free(log, log->next_segment + 1));
}

/* Does the superblock on the card not yet allow to open the next segment? */
int drip_log_needs_super(const drip_log_t *log)
{
    uint32_t count = log->super.segment_count;
    uint32_t before = log->next_segment - count;
    uint32_t opened = log->next_segment - log->super.next_segment;

    /* A mount looks for newer segments from the one that the superblock names on. */
    return opened >= LOG_SUPER_SEGMENTS || opened >= count / 2 ||
           log->super.next_seq < log->next_seq + 2 * log_reserve(log) ||
           (log->next_segment >= count && before >= log->tail_segment &&
            before >= log->acked_durable);
}

static void note_gap(drip_log_t *log)
{
    drip_record_gap_t *gap = &log->gap;

    gap->last_us = log->port->time_us(log->port->context);
    if (gap->first_us == 0) {
        gap->first_us = gap->last_us;
    }
}

/* Refused frames are told with the next eviction: a record for each few would cost more than it tells. */
static int has_evicted(const drip_log_t *log)
{
    return log_evict_of(log)->pace > 0;
}

static int has_gap(const drip_log_t *log)
{
    const drip_record_gap_t *gap = &log->gap;

    return (gap->full | gap->card | gap->damaged) != 0 || (gap->evicted != 0 && !has_evicted(log));
}

static uint32_t is_note(const drip_record_header_t *header)
{
    return header->flags >> DRIP_RECORD_KIND_SHIFT != DRIP_RECORD_KIND_FRAME;
}

static void start(drip_log_t *log, drip_record_header_t *header, const uint8_t *payload)
{
    header->magic = DRIP_RECORD_MAGIC;
    header->version = DRIP_RECORD_VERSION;
    header->header_bytes = DRIP_RECORD_HEADER_BYTES;
    header->seq = log->next_seq++;
    log->header = *header;
    log->header.payload_crc = 0;
    log->payload = payload;
    log->cursor = 0;
    log->mark_bytes = 0;
    log->mark_crc = 0;
    log->pending_notes = (uint8_t)(log->pending_notes + is_note(header));
    if (log->pending++ == 0) {
        log->oldest_pending_us = log->port->time_us(log->port->context);
    }
    log->append_stage = APPEND_CRC;
}

void drip_log_start_gap(drip_log_t *log, int wanted)
{
    drip_record_header_t header;

    if ((!has_gap(log) && !wanted) || log->append_stage != APPEND_NONE ||
        log->ack_stage != ACK_NONE || log->evict_stage != EVICT_NONE) {
        return;
    }
    memset(&header, 0, sizeof(header));
    header.payload_bytes = sizeof(log->copy.gap);
    header.flags = DRIP_RECORD_KIND_GAP << DRIP_RECORD_KIND_SHIFT;
    header.boot_id = log->boot_id;
    if (!fits(log, &header) && !drip_log_can_open(log)) {
        return;
    }
    note_gap(log);
    header.time_us = log->gap.last_us;
    log->copy.gap = log->gap;
    start(log, &header, (const uint8_t *)&log->copy.gap);
}

int drip_log_append(drip_log_t *log, drip_record_header_t *header, const uint8_t *payload)
{
    uint32_t first = DRIP_SEGMENT_HEADER_BYTES;

    int full;

    if (!drip_log_usable(log)) {
        return DRIP_ERR_NO_CARD;
    }
    if (log->append_stage != APPEND_NONE || log->sync_wanted || log->ack_stage != ACK_NONE ||
        log->evict_stage != EVICT_NONE) {
        return DRIP_ERR_BUSY;
    }
    /* An eviction writes a GAP record in a block of its own before the record that waits. */
    if (log->config.full_mode == DRIP_FULL_EVICT) {
        first += DRIP_BLOCK_BYTES;
    }
    if (header->payload_bytes == 0 || header->payload_bytes > DRIP_MAX_FRAME_BYTES ||
        drip_log_advance(first, record_bytes(header)) > drip_log_segment_bytes(log)) {
        return DRIP_ERR_ARGUMENT;
    }
    header->boot_id = log->boot_id;
    full = !drip_log_can_open(log);
    if (full && evicts(log)) {
        if (log->task == TASK_SUPER || log->task == TASK_CHECKPOINT) {
            return DRIP_ERR_BUSY; /* what counts refused frames is being written */
        }
        if (drip_log_turn_away(log, header)) {
            note_gap(log);
            return DRIP_LOG_REFUSED;
        }
    }
    if (full && !fits(log, header)) {
        if (evicts(log)) {
            drip_log_evict(log, record_bytes(header));
            return DRIP_ERR_BUSY;
        }
        log->card = DRIP_CARD_FULL;
        /* What fitted before is due now: nothing may follow for long. */
        log->sync_wanted = log->pending > 0;
        log->gap.full++;
        note_gap(log);
        return DRIP_ERR_FULL;
    }
    log->card = DRIP_CARD_READY;
    start(log, header, payload);
    return DRIP_ERR_OK;
}

static void append_crc(drip_log_t *log)
{
    uint32_t n = log->header.payload_bytes - log->cursor;

    n = n < CRC_STEP_BYTES ? n : CRC_STEP_BYTES;
    log->header.payload_crc = drip_crc32(log->header.payload_crc, log->payload + log->cursor, n);
    log->cursor += n;
    if (log->cursor == log->header.payload_bytes) {
        log->cursor = 0;
        log->append_stage = fits(log, &log->header) ? APPEND_COPY : APPEND_CLOSE;
    }
}

static void make_header(drip_log_t *log)
{
    drip_segment_header_t *header = &log->block.segment;

    drip_log_note_closed(log);
    memset(header, 0, sizeof(*header));
    header->magic = DRIP_SEGMENT_MAGIC;
    header->version = DRIP_SEGMENT_VERSION;
    header->header_bytes = DRIP_SEGMENT_HEADER_BYTES;
    memcpy(header->log_uuid, log->super.log_uuid, sizeof(header->log_uuid));
    header->segment = log->next_segment;
    header->boot_id = log->boot_id;
    header->time_us = log->port->time_us(log->port->context);
    header->segment_bytes = drip_log_segment_bytes(log);
    if (log->closed.valid) {
        header->previous_records = log->closed.records;
        header->previous_digest = log->closed.digest;
        header->previous_bytes = log->closed.bytes;
        header->flags = log->closed.unknown ? DRIP_SEGMENT_PREVIOUS_UNKNOWN : 0;
    }
    header->stream_count = log->stream_count;
    memcpy(header->streams, log->streams, sizeof(header->streams));
    header->acked_segment = log->super.acked_segment;
    header->data_block = log->super.data_block;
    header->unit_blocks = log->super.unit_blocks;
    header->segment_count = log->super.segment_count;
    header->region_blocks = log->region_blocks;
    header->tail_segment = log->tail_segment;
    header->gaps = log->gaps;
}

void drip_log_write_header(drip_log_t *log, uint64_t first_seq, uint64_t next_seq, uint32_t victim)
{
    drip_segment_header_t *header = &log->block.segment;
    uint32_t count = log->super.segment_count;

    if (drip_log_witness_step(log, log->next_segment, 0)) {
        return;
    }
    if (log->next_segment >= count && log->tail_segment <= log->next_segment - count) {
        log->tail_segment = log->next_segment - count + 1;
    }
    make_header(log);
    header->first_seq = first_seq;
    header->next_seq = next_seq;
    header->victim = victim;
    drip_log_witness_take(log, header->witness);
    header->crc = drip_crc32(0, header, sizeof(*header) - sizeof(header->crc));
    (void)drip_log_start_write(log, TASK_HEADER, drip_log_segment_block(log, log->next_segment),
                               &log->block, 1);
}

static void append_close(drip_log_t *log)
{
    if (log->block_fill > 0) {
        (void)drip_log_flush(log);
        return;
    }
    /* A restart in between finds the same segment to close, with the same content. */
    drip_log_mark_durable(log, 1);
    log->open = 0;
    log->append_stage = drip_log_needs_super(log) ? APPEND_SUPER : APPEND_HEADER;
}

void drip_log_header_written(drip_log_t *log)
{
    log->next_segment++;
    log->offset = DRIP_SEGMENT_HEADER_BYTES;
    log->block_number = 1;
    log->block_fill = 0;
    log->records = 0;
    log->digest = 0;
    log->unknown = 0;
    log->open = 1;
    if (log->evict_stage != EVICT_NONE) {
        drip_log_mark_durable(log, 0);
        log->evict_stage = EVICT_AGAIN;
        return;
    }
    drip_log_take_all(log);
    log->refound = 0;
    drip_log_mark_durable(log, 1);
    log->append_stage = APPEND_COPY;
}

/* Copies as much of the record as the block takes, or writes whole blocks of the payload as they lie. */
static void append_copy(drip_log_t *log)
{
    uint8_t *block = log->block.bytes;
    uint32_t total = DRIP_RECORD_HEADER_BYTES + log->header.payload_bytes;
    uint32_t room;
    uint32_t n;

    if (drip_log_witness_mark(log)) {
        return;
    }
    drip_log_put_mark(log);
    room = DRIP_BLOCK_BYTES - log->block_fill;
    if (log->cursor < DRIP_RECORD_HEADER_BYTES) {
        if (log->cursor == 0) {
            log->header.header_crc =
                drip_crc32(drip_log_record_seed(log, log->next_segment - 1), &log->header,
                           DRIP_RECORD_HEADER_BYTES - sizeof(log->header.header_crc));
        }
        n = DRIP_RECORD_HEADER_BYTES - log->cursor;
        n = n < room ? n : room;
        memcpy(block + log->block_fill, (const uint8_t *)&log->header + log->cursor, n);
    } else {
        n = total - log->cursor;
        if (log->block_fill == 0 && n >= DRIP_BLOCK_BYTES) {
            n /= DRIP_BLOCK_BYTES;
            room = DRIP_MARK_BLOCKS - log->block_number % DRIP_MARK_BLOCKS;
            log->direct = n < room ? n : room;
            (void)drip_log_start_write(
                log, TASK_DIRECT,
                drip_log_segment_block(log, log->next_segment - 1) + log->block_number,
                log->payload + (log->cursor - DRIP_RECORD_HEADER_BYTES), log->direct);
            return;
        }
        n = n < room ? n : room;
        memcpy(block + log->block_fill, log->payload + (log->cursor - DRIP_RECORD_HEADER_BYTES), n);
    }
    log->block_fill += n;
    log->cursor += n;
    if (log->cursor == total) {
        n = log_align(log->block_fill, DRIP_RECORD_ALIGN) - log->block_fill;
        memset(block + log->block_fill, 0, n);
        log->block_fill += n;
    }
    if (log->block_fill == DRIP_BLOCK_BYTES) {
        (void)drip_log_flush(log);
    }
}

static void append_end(drip_log_t *log)
{
    log->offset = drip_log_advance(log->offset, record_bytes(&log->header));
    log->records++;
    log->digest = drip_crc32(log->digest, &log->header.header_crc, sizeof(log->header.header_crc));
    drip_log_count_taken(log);
    log->append_stage = APPEND_NONE;
    if (log_kind_of(&log->header) == DRIP_RECORD_KIND_GAP) {
        log->sync_wanted = 1;
        return;
    }
    if (log->block_fill == 0) {
        drip_log_mark_durable(log, 0);
    } else if (log->config.commit_ms == 0 ||
               (log->config.commit_bytes > 0 && log->block_fill >= log->config.commit_bytes)) {
        log->sync_wanted = 1;
    }
    drip_log_start_gap(log, 0);
}

void drip_log_append_step(drip_log_t *log)
{
    switch (log->append_stage) {
    case APPEND_CRC:
        append_crc(log);
        break;
    case APPEND_CLOSE:
        append_close(log);
        break;
    case APPEND_HEADER:
        drip_log_write_header(log, log->header.seq, log->header.seq, 0);
        break;
    case APPEND_SUPER:
        (void)drip_log_start_super(log);
        break;
    default:
        if (log->cursor < DRIP_RECORD_HEADER_BYTES + log->header.payload_bytes) {
            append_copy(log);
        } else {
            append_end(log);
        }
    }
}
