/* Scanning a segment for its records. At every multiple of RECORD_ALIGN: an intact record counts and is
 * skipped, anything else is not one. Readers on the host follow the same rule. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

enum { NO_BLOCK = 0xffffffff };

/* While records are copied, `block` is what is written. */
static uint8_t *buffer(drip_log_t *log)
{
    return log->evict_stage >= EVICT_WALK ? log->copy.bytes : log->block.bytes;
}

/* Starts on the candidate at an offset. */
void drip_log_scan_from(drip_log_t *log, uint32_t offset)
{
    log->scan = log_skip(offset);
    log->scan_at = log->scan;
    log->cursor = 0;
}

void drip_log_scan_begin(drip_log_t *log, uint32_t segment, uint32_t offset, uint32_t limit,
                         int quick)
{
    drip_log_scan_from(log, offset);
    log->scan_segment = segment;
    log->scan_limit = limit;
    log->scan_end = offset;
    log->scan_records = 0;
    log->scan_digest = 0;
    log->scan_block = NO_BLOCK;
    log->scan_quick = (uint8_t)quick;
    log->scan_cut = 0;
    log->scan_failed = 0;
    log->scan_look = 0;
    log->scan_claim = 0;
    if (quick == SCAN_QUICK) {
        log->ack_records = 0;
    }
    if (quick != SCAN_QUICK) {
        log->scan_seq = 0;
    }
}

int drip_log_is_header(const drip_log_t *log, uint32_t segment, const drip_record_header_t *header,
                       uint64_t seq)
{
    uint32_t crc = drip_crc32(drip_log_record_seed(log, segment), header,
                              DRIP_RECORD_HEADER_BYTES - sizeof(header->header_crc));

    return header->magic == DRIP_RECORD_MAGIC && crc == header->header_crc &&
           header->version >= DRIP_RECORD_VERSION &&
           header->header_bytes >= DRIP_RECORD_HEADER_BYTES && header->payload_bytes > 0 &&
           header->payload_bytes <= DRIP_MAX_FRAME_BYTES && header->seq >= seq;
}

static int is_record(const drip_log_t *log)
{
    const drip_record_header_t *header = &log->header;

    return drip_log_is_header(log, log->scan_segment, header, log->scan_seq) &&
           drip_log_advance(log->scan, header->header_bytes + header->payload_bytes) <=
               drip_log_segment_bytes(log);
}

static int has_magic(const uint8_t *bytes)
{
    return bytes[0] == (DRIP_RECORD_MAGIC & 0xff) && bytes[1] == (DRIP_RECORD_MAGIC >> 8);
}

/* A mark knows how the record goes on behind it: only its header is read, in front of the mark. */
static void resume(drip_log_t *log)
{
    if (log->scan_quick != SCAN_QUICK) {
        return;
    }
    if (log->ack_records > DRIP_RECORD_HEADER_BYTES) {
        log->cursor = log->ack_records;
        log->scan_crc = log->ack_digest;
        log->scan_at = log_skip(log->block_number * LOG_AREA_BYTES);
    }
    log->ack_records = 0;
}

/* The candidate is no record. */
static void refuse(drip_log_t *log)
{
    uint32_t next = log->scan + DRIP_RECORD_ALIGN;

    if (log->scan_quick == SCAN_QUICK && log->ack_records != 0) {
        /* The mark has seen its header: that is lost, and what it was of. */
        log->ack_records = 0;
        log->direct = 1;
        drip_log_scan_from(log, log->block_number * LOG_AREA_BYTES);
        return;
    }
    if (log->scan_quick == SCAN_QUICK && log->scan / DRIP_BLOCK_BYTES != log->scan_block) {
        next = log->scan_block * DRIP_BLOCK_BYTES;
    }
    drip_log_scan_from(log, next);
}

/* Within a boot numbers count up by one, but for what was taken over from a victim. */
uint32_t drip_log_missing(const drip_log_t *log)
{
    const drip_record_header_t *header = &log->header;
    const drip_segment_header_t *head = &log->copy.head;
    uint64_t least = log->scan_seq;
    uint32_t boot = log->evict_need;

    if (head->segment_bytes == 0) {
        return 0; /* it is damaged */
    }
    if (least < head->next_seq) {
        least = head->next_seq;
        boot = head->boot_id;
    }
    return header->boot_id == boot && header->seq > least ? (uint32_t)(header->seq - least) : 0;
}

static void count_missing(drip_log_t *log)
{
    uint32_t missing = drip_log_missing(log);

    if (missing > 0) {
        log->gap.card += missing;
        log->refound += missing;
        log->unknown = 1;
        log->open = 0;
    }
    log->evict_need = log->header.boot_id;
}

static void accept(drip_log_t *log)
{
    if (log->stage != MOUNT_NONE) {
        drip_log_witness_record(log, 1);
        count_missing(log);
        log->gaps += log_kind_of(&log->header) == DRIP_RECORD_KIND_GAP;
    }
    log->scan_records++;
    log->scan_digest =
        drip_crc32(log->scan_digest, &log->header.header_crc, sizeof(log->header.header_crc));
    log->scan_seq = log->header.seq + 1;
    if (log->stage != MOUNT_NONE && log->header.boot_id > log->super.boot_id) {
        log->super.boot_id = log->header.boot_id;
    }
    drip_log_scan_from(log, log_align(log->scan_at, DRIP_RECORD_ALIGN));
    log->scan_end = log->scan;
}

/* `n` bytes of the block are there from `at` on: takes what the header lacks. */
static void scan_header(drip_log_t *log, uint32_t at, uint32_t n)
{
    const uint8_t *bytes = buffer(log) + at % DRIP_BLOCK_BYTES;

    if (log->cursor == 0 && !has_magic(bytes) &&
        (log->scan_quick != SCAN_QUICK || log->ack_records == 0)) {
        drip_log_scan_from(log, log->scan + DRIP_RECORD_ALIGN);
        return;
    }
    if (n > DRIP_RECORD_HEADER_BYTES - log->cursor) {
        n = DRIP_RECORD_HEADER_BYTES - log->cursor;
    }
    memcpy((uint8_t *)&log->header + log->cursor, bytes, n);
    log->cursor += n;
    log->scan_at = at + n;
    log->scan_crc = 0;
    if (log->cursor < DRIP_RECORD_HEADER_BYTES) {
        return;
    }
    if (is_record(log)) {
        resume(log);
    } else {
        refuse(log);
    }
}

/* After a power loss the log goes on at the start of a block: what is there then is newer than the
 * candidate, which was cut short. */
static int is_overtaken(const drip_log_t *log, uint32_t at)
{
    drip_record_header_t other;
    const uint8_t *bytes = log->block.bytes + at % DRIP_BLOCK_BYTES;

    if (at != log_skip(at - at % DRIP_BLOCK_BYTES) || !has_magic(bytes)) {
        return 0;
    }
    memcpy(&other, bytes, sizeof(other));
    return drip_log_is_header(log, log->scan_segment, &other, log->header.seq + 1);
}

/* Returns 2 when a record ends there that is to be shown. */
static int scan_payload(drip_log_t *log, uint32_t at, uint32_t n)
{
    uint32_t left = log->header.header_bytes + log->header.payload_bytes - log->cursor;

    if (log->scan_quick == SCAN_QUICK && is_overtaken(log, at)) {
        drip_log_scan_from(log, at);
        return 0;
    }
    n = n < left ? n : left;
    log->scan_crc = drip_crc32(log->scan_crc, buffer(log) + at % DRIP_BLOCK_BYTES, n);
    log->cursor += n;
    log->scan_at = at + n;
    if (n < left) {
        return 0;
    }
    if (log->scan_crc == log->header.payload_crc) {
        if (log->scan_quick == SCAN_EACH) {
            return 2;
        }
        accept(log);
    } else if (log->scan_quick == SCAN_QUICK) {
        drip_log_witness_record(log, 0);
        log->scan_claim = log->scan_at;
        drip_log_scan_from(log, log_align(log->scan_at, DRIP_RECORD_ALIGN));
    } else {
        refuse(log);
    }
    return 0;
}

/* The candidate goes on behind the limit. Returns 1 when there may be others. */
static int reached_limit(drip_log_t *log)
{
    log->scan_cut = log->cursor >= DRIP_RECORD_HEADER_BYTES;
    if (log->scan_quick == SCAN_QUICK || log->cursor == 0) {
        return 0;
    }
    refuse(log);
    return 1;
}

int drip_log_scan_step(drip_log_t *log, uint8_t task)
{
    while (log->cursor != 0 || log->scan + LOG_MIN_RECORD <= drip_log_segment_bytes(log)) {
        uint32_t at = log_skip(log->scan_at);
        uint32_t n = DRIP_BLOCK_BYTES - at % DRIP_BLOCK_BYTES;

        if (at >= log->scan_limit && log->scan_quick == SCAN_FULL &&
            log->cursor >= DRIP_RECORD_HEADER_BYTES) {
            /* The unused end reads as zeros, which may be what a record lacks. */
            memset(&log->block, 0, sizeof(log->block));
            log->scan_block = at / DRIP_BLOCK_BYTES;
        } else if (at >= log->scan_limit) {
            if (!reached_limit(log)) {
                return 0;
            }
            continue;
        }
        if (at / DRIP_BLOCK_BYTES != log->scan_block) {
            uint32_t block = drip_log_segment_block(log, log->scan_segment);
            int result;

            log->scan_block = at / DRIP_BLOCK_BYTES;
            result = drip_log_start_read(log, task, block + log->scan_block, buffer(log), 1);
            if (result < 0) {
                drip_log_fail(log, result);
            }
            return 1;
        }
        if (log->cursor < DRIP_RECORD_HEADER_BYTES) {
            scan_header(log, at, n);
        } else if (scan_payload(log, at, n) != 0) {
            return 2;
        }
    }
    return 0;
}

void drip_log_scan_done(drip_log_t *log, int result)
{
    if (result < 0) {
        /* What cannot be read holds no record. */
        memset(buffer(log), 0, DRIP_BLOCK_BYTES);
        log->scan_failed = 1;
    }
}
