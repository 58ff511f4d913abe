/* Shared by the files of stage log; not for anyone else. */
#ifndef DRIP_LOG_INTERNAL_H
#define DRIP_LOG_INTERNAL_H

#include "drip/log.h"

enum {
    LOG_MIN_RECORD = DRIP_RECORD_HEADER_BYTES + DRIP_RECORD_ALIGN,
    LOG_MAX_SEGMENT_BLOCKS = 65536,
    /* Numbers that would overflow soon do not come from a log that was written block by block. */
    LOG_MAX_SEGMENT = 0x7fff0000,
    LOG_AREA_BYTES = DRIP_MARK_BLOCKS * DRIP_BLOCK_BYTES, /* from mark to mark */
    LOG_SUPER_US = 10000000,                              /* superblocks are that far apart */
    LOG_CHECKPOINT_US = 60000000, /* a checkpoint alone waits that long for one */
    LOG_SUPER_SEGMENTS = 32,      /* or that many segments */
    LOG_RESERVE_SEGMENTS = 34,    /* what a superblock reserves numbers for */
};

/* What the transfer in flight is for. */
enum {
    TASK_NONE,
    TASK_FLUSH,
    TASK_DIRECT,
    TASK_HEADER,
    TASK_SUPER,
    TASK_CHECKPOINT, /* a superblock between other work */
    TASK_READ_INFO,
    TASK_READ_DATA,
    TASK_ACK_INFO,
    TASK_ACK_SCAN,
    TASK_MOUNT,
    TASK_EVICT,
    TASK_WITNESS,
};

enum {
    APPEND_NONE,
    APPEND_CRC,    /* checksum of the payload, in pieces */
    APPEND_CLOSE,  /* the record needs a new segment: flush the old one */
    APPEND_SUPER,  /* reserve its sequence numbers, make sure that what it overwrites is free */
    APPEND_HEADER, /* write its header */
    APPEND_COPY,   /* header, then payload */
};

enum {
    MOUNT_NONE,
    MOUNT_SIZE,
    MOUNT_SUPER_A,
    MOUNT_SUPER_B,
    MOUNT_REBUILD,
    MOUNT_PROBE,
    MOUNT_TAIL,
    MOUNT_HEAD,
    MOUNT_NEXT,
    MOUNT_MARK,
    MOUNT_SCAN,
    MOUNT_WRITE
};

enum {
    EVICT_NONE,
    EVICT_CLOSE,   /* flush the newest segment */
    EVICT_SUPER,   /* as before any new segment */
    EVICT_INFO,    /* read the header behind the victim */
    EVICT_HEAD,    /* and its own */
    EVICT_SUMMARY, /* of its records */
    EVICT_HEADER,  /* write the header of the new segment */
    EVICT_AGAIN,   /* go through the victim once more */
    EVICT_WALK,    /* decide on the next record */
    EVICT_COPY,    /* it survives */
    EVICT_MERGE,   /* it is a GAP record */
    EVICT_END,     /* a GAP record follows */
};

enum { READ_NONE, READ_INFO, READ_DATA };

enum { ACK_NONE, ACK_FLUSH, ACK_INFO, ACK_SCAN };

static inline uint32_t log_align(uint32_t value, uint32_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* The largest power of two below `count`, 2 or more. */
static inline uint32_t log_half(uint32_t count)
{
    uint32_t half = 1;

    while (half < count - half) {
        half *= 2;
    }
    return half;
}

/* The offset, or the one behind the mark that starts there. */
static inline uint32_t log_skip(uint32_t offset)
{
    return offset % LOG_AREA_BYTES == 0 && offset != 0 ? offset + DRIP_LOG_MARK_BYTES : offset;
}

/* Where `bytes` of records that start at `offset` end: they flow around the marks. */
uint32_t drip_log_advance(uint32_t offset, uint32_t bytes);

static inline int drip_log_usable(const drip_log_t *log)
{
    return log->card == DRIP_CARD_READY || log->card == DRIP_CARD_FULL;
}

uint32_t drip_log_segment_block(const drip_log_t *log, uint32_t segment);
uint32_t drip_log_segment_bytes(const drip_log_t *log);

/* In the scratch of the superblock. The first three say what a full log takes, and stay with the card; the
 * others are zeros but while a segment is evicted. */
typedef struct {
    /* Per class: frames that the newest segment lacks; while its victim is read, quarter of the ranks << 6 |
     * frames of it to keep. */
    uint8_t floor[64];
    uint16_t level; /* mean rank of what was dropped of late */
    uint16_t pace;  /* no rank from this on is refused; 0: there was room of late */
    uint32_t dropped;
    uint32_t ranks; /* sum of theirs / 8 */
    uint32_t damaged;
    uint32_t full; /* sums of the GAP records in the victim */
    uint32_t card;
    uint32_t evicted;
    drip_record_gap_t found; /* the last of these */
} log_evict_t;

static inline log_evict_t *log_evict(drip_log_t *log)
{
    return (log_evict_t *)(void *)log->super.scratch;
}

static inline const log_evict_t *log_evict_of(const drip_log_t *log)
{
    return (const log_evict_t *)(const void *)log->super.scratch;
}

/* Fills in magic, version, size and CRC. */
void drip_log_seal_super(drip_superblock_t *super);

/* Says whether a superblock is intact and its geometry fits `region_blocks`. */
int drip_log_check_super(const drip_superblock_t *super, uint32_t region_blocks);

/* Says whether a segment header is intact; of which log and segment is for the caller to compare. */
int drip_log_check_segment(const drip_segment_header_t *header);

/* Where the CRCs of the records of a segment start. */
uint32_t drip_log_record_seed(const drip_log_t *log, uint32_t segment);

/* Numbers that no segment can use up. */
static inline uint32_t log_reserve(const drip_log_t *log)
{
    return log->super.segment_blocks * (DRIP_BLOCK_BYTES / DRIP_RECORD_HEADER_BYTES);
}

/* Starts writing the superblock to the copy whose turn it is; it becomes the newest when done. */
int drip_log_start_super(drip_log_t *log);
void drip_log_super_written(drip_log_t *log);

/* Another mount: what is known of the card until now. And its end: what of that is told, and what the
 * superblock has to tell. */
void drip_log_keep_untold(drip_log_t *log);
void drip_log_take_untold(drip_log_t *log);

/* Returns 1 when there is something to note and the last one is long enough ago. */
int drip_log_super_due(const drip_log_t *log);

/* A write failed: where that goes on, the log goes around the place. */
void drip_log_note_failed(drip_log_t *log, uint8_t task, int error);
enum { LOG_TRIES = 3 };

/* Starts a transfer for a task, counting failures. Returns DRIP_ERR_OK or the error. */
int drip_log_start_read(drip_log_t *log, uint8_t task, uint32_t block, void *out, uint32_t count);
int drip_log_start_write(drip_log_t *log, uint8_t task, uint32_t block, const void *data,
                         uint32_t count);

/* Ends everything after a failure that the log cannot go on with. */
void drip_log_fail(drip_log_t *log, int error);

/* The mount's share of drip_log_step: `result` of the transfer that ended, or 0 when none was. */
int drip_log_mount_step(drip_log_t *log);
void drip_log_mount_done(drip_log_t *log, int result);

/* The newest segment: looks for headers, then at the oldest one, its own, and what may lie behind it. */
int drip_log_probe_step(drip_log_t *log);
void drip_log_probe_done(drip_log_t *log, int result);
void drip_log_tail_done(drip_log_t *log, int result);
void drip_log_head_done(drip_log_t *log, int result);
void drip_log_next_done(drip_log_t *log, int result);

/* Looks for a segment when there is no superblock; without any the card is foreign. */
int drip_log_rebuild_step(drip_log_t *log);
void drip_log_rebuild_done(drip_log_t *log, int result);
int drip_log_foreign(drip_log_t *log);

/* Starts a block read into `block`. */
int drip_log_mount_read(drip_log_t *log, uint32_t block);

/* Starts to look for the records of a segment from `offset` to `limit`. The results are in scan_*.
 * A quick scan reads every block once: it trusts that whatever starts a block as a record is one. One of
 * SCAN_EACH stops at every record: drip_log_scan_step returns 2. */
enum { SCAN_FULL, SCAN_QUICK, SCAN_EACH };

void drip_log_scan_begin(drip_log_t *log, uint32_t segment, uint32_t offset, uint32_t limit,
                         int quick);
/* Goes on with the candidate at an offset. */
void drip_log_scan_from(drip_log_t *log, uint32_t offset);
/* Is this a header of a record of `segment` with at least the number `seq`? */
int drip_log_is_header(const drip_log_t *log, uint32_t segment, const drip_record_header_t *header,
                       uint64_t seq);
/* Mount: numbers that are missing in front of the record in `header`. */
uint32_t drip_log_missing(const drip_log_t *log);
/* Returns 1 while it goes on (a read for `task` may be in flight), 0 at the end. */
int drip_log_scan_step(drip_log_t *log, uint8_t task);
void drip_log_scan_done(drip_log_t *log, int result);

/* The marks of the newest segment, and the scan from the last one on. */
int drip_log_mark_step(drip_log_t *log);
void drip_log_mark_done(drip_log_t *log, int result);
void drip_log_found_end(drip_log_t *log);
/* Starts to look at the end again, for a card may answer wrongly once; 0 when that is done. */
int drip_log_look_again(drip_log_t *log);

/* Starts the block that is being filled with a mark, when it is the turn of one. */
void drip_log_put_mark(drip_log_t *log);

/* What lies in the blocks behind `block`, the next header or mark of `segment`, is read before that is
 * written; returns 1 while it is. Then it is handed over. */
int drip_log_witness_step(drip_log_t *log, uint32_t segment, uint32_t block);
void drip_log_witness_done(drip_log_t *log, int result);
void drip_log_witness_take(drip_log_t *log, uint16_t *out);
/* The same when the block that is to be filled starts with a mark. */
int drip_log_witness_mark(drip_log_t *log);
/* Mount: a block of the newest segment was read, or the place of the next header; then, is what lies
 * behind the end still what was there before? */
void drip_log_witness_seen(drip_log_t *log, uint32_t block, int result);
void drip_log_witness_header(drip_log_t *log, int result);
void drip_log_witness_record(drip_log_t *log, int intact);
void drip_log_witness_judge(drip_log_t *log, uint32_t end);
void drip_log_witness_judge_header(drip_log_t *log);

/* While they are collected: behind the GAP record that may be being appended. */
static inline uint16_t *log_witness(drip_log_t *log)
{
    return (uint16_t *)(void *)(log->copy.bytes + DRIP_BLOCK_BYTES / 2);
}

/* The read's and acknowledgement's share. */
int drip_log_read_step(drip_log_t *log);
void drip_log_read_done(drip_log_t *log, int result);
int drip_log_ack_step(drip_log_t *log);
void drip_log_ack_done(drip_log_t *log, uint8_t task, int result);

/* Everything up to `offset` is on the medium, but for `pending` (0 or 1) records that are not in it. */
void drip_log_mark_durable(drip_log_t *log, uint32_t pending);

/* The append's share of drip_log_step, and what follows the write of a segment header. */
void drip_log_append_step(drip_log_t *log);
void drip_log_header_written(drip_log_t *log);

/* Opening a segment: the flush before it, and its header. */
int drip_log_can_open(const drip_log_t *log);
int drip_log_slot_free(const drip_log_t *log, uint32_t segment);
int drip_log_needs_super(const drip_log_t *log);
void drip_log_write_header(drip_log_t *log, uint64_t first_seq, uint64_t next_seq, uint32_t victim);

/* Appends a GAP record when one is due, or wanted, and fits. */
void drip_log_start_gap(drip_log_t *log, int wanted);

/* Starts to make room for a record of `need` bytes; its share of drip_log_step. */
void drip_log_evict(drip_log_t *log, uint32_t need);
void drip_log_evict_step(drip_log_t *log);
void drip_log_evict_done(drip_log_t *log, int result);

static inline uint32_t log_size_of(const drip_record_header_t *header)
{
    return log_align(header->header_bytes + header->payload_bytes, DRIP_RECORD_ALIGN);
}

static inline uint32_t log_kind_of(const drip_record_header_t *header)
{
    return header->flags >> DRIP_RECORD_KIND_SHIFT;
}

/* What a frame is worth, 0..65535: its percentile; for one of the random share a draw in its place. */
uint32_t drip_log_rank(const drip_record_header_t *header);

/* Is a GAP record being appended or not yet durable? Nothing is appended behind it before. */
static inline int log_gap_pending(const drip_log_t *log)
{
    return log->pending_notes > 0 && log_kind_of(&log->header) == DRIP_RECORD_KIND_GAP;
}

/* In a log that had to evict: is a frame not worth its place? Counts it then. And counts the record in
 * `header` that was taken. */
int drip_log_turn_away(drip_log_t *log, const drip_record_header_t *header);
void drip_log_count_taken(drip_log_t *log);

/* Makes zeros of what only an eviction needs. */
void drip_log_clear_work(drip_log_t *log);

/* A victim is done with: what the next frames have to reach. */
void drip_log_set_level(drip_log_t *log);

/* A segment was opened without a victim: there is room again. */
void drip_log_take_all(drip_log_t *log);

/* Step of the ranks that a frame is in: 0 below the level, 1..63 above. */
uint32_t drip_log_bucket(const drip_log_t *log, const drip_record_header_t *header);

/* Counts the record in `header`, of that step, in the summary; from that, chooses what survives; does it? */
void drip_log_summarise(drip_log_t *log, uint32_t bucket);
void drip_log_choose(drip_log_t *log);
int drip_log_survives(drip_log_t *log, uint32_t bucket);

/* Mount: the newest segment took over from a victim, or was cut while it did. */
void drip_log_settle_victim(drip_log_t *log);

/* What is known of a closed segment, from the header behind it; NULL when that cannot be read. */
int drip_log_know_closed(drip_log_t *log, uint32_t segment);
void drip_log_learn_closed(drip_log_t *log, uint32_t segment, const drip_segment_header_t *next);

/* Makes `closed` describe the newest segment. */
void drip_log_note_closed(drip_log_t *log);

/* Starts to write the partly filled block, zero-padded. */
int drip_log_flush(drip_log_t *log);

#endif
