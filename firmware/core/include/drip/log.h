/* Stage 6, log: an append-only log of records on a card. Loses nothing it has called durable.
 *
 * The log lives in a region of consecutive blocks: a superblock in the first erase unit, segments, a
 * second superblock in the last erase unit. Positions are 64-bit byte offsets that are never reused:
 * segment number * segment bytes + offset. Layout and recovery: docs/SPEC.md.
 *
 * One transfer at a time: drip_log_step starts and polls them, every other function returns at once.
 * The log is usable while its card state is READY or FULL. */
#ifndef DRIP_LOG_H
#define DRIP_LOG_H

#include "drip/volume.h"

/* Geometry and identity for drip_log_format. */
typedef struct {
    uint8_t uuid[16];
    uint32_t first_block;    /* of the region on the card */
    uint32_t blocks;         /* of the region */
    uint32_t unit_blocks;    /* erase unit, a power of two */
    uint32_t segment_blocks; /* a power of two, 2..65536 */
} drip_log_geometry_t;

typedef struct {
    uint32_t commit_ms;    /* a block that is not full is written after this time; 0 = at once */
    uint32_t commit_bytes; /* or when it holds this many bytes; 0 or >= 512 = by time only */
    uint8_t full_mode;     /* enum DRIP_FULL_* */
    uint8_t
        class_floor; /* EVICT: frames of each class that a segment keeps, 0..DRIP_MAX_CLASS_FLOOR */
    uint8_t reserved[2];
} drip_log_config_t;

/* What the log knows about a segment that is closed. */
typedef struct {
    uint32_t segment;
    uint32_t bytes; /* used */
    uint32_t records;
    uint32_t digest;
    uint8_t valid;   /* the members above are of `segment` */
    uint8_t unknown; /* records and digest could not be read */
    uint8_t reserved[2];
} drip_log_closed_t;

/* drip_log_append: the frame is less important than what it would displace. */
enum { DRIP_LOG_REFUSED = 1 };

/* What a segment holds that is to be evicted: bytes by rank, frames by class and rank. */
typedef struct {
    uint32_t bytes[64];
    uint8_t classes[64][4];
} drip_log_summary_t;

/* State of the log: 2 KiB. Members are private; use the functions. Bytes come first, large members last:
 * an instruction of a Cortex-M is short when it reaches no farther than 31 bytes, words 124. */
typedef struct {
    const drip_port_t *port;
    uint8_t card;    /* enum DRIP_CARD_* */
    uint8_t open;    /* the newest segment takes records */
    uint8_t unknown; /* its records and digest are not all known */
    uint8_t task;    /* transfer in flight */
    uint8_t stage;   /* of the mount */
    uint8_t append_stage;
    uint8_t sync_wanted;
    uint8_t ack_stage;
    uint8_t evict_stage;
    uint8_t evict_bucket; /* survivors are above this, and some of it */
    uint8_t read_stage;
    uint8_t read_turn;      /* reads and appends alternate */
    uint8_t supers;         /* mount: valid superblocks, bit per copy */
    uint8_t probe_back;     /* mount: how often the search has passed the end */
    uint8_t checkpoint_due; /* it was set after the last superblock */
    uint8_t scan_quick;
    uint8_t scan_failed;   /* a block could not be read */
    uint8_t scan_cut;      /* the last record goes on behind the limit */
    uint8_t scan_look;     /* mount: how often the end was looked at again */
    uint8_t pending_notes; /* of `pending`, not frames: a block holds few */
    uint32_t next_segment; /* number of the next segment; the open one is the one before */
    uint32_t tail_segment; /* oldest segment on the card */
    uint32_t offset;       /* end of the log in the open segment, bytes */
    uint32_t cursor;       /* of the header and payload being written, or the CRC being taken */
    uint32_t block_number; /* where `block` belongs: in the open segment, or of the scan */
    uint32_t block_fill;   /* bytes used in `block` */
    uint32_t probe_step;   /* mount; later: witnesses collected */
    uint32_t scan;         /* offset of the candidate record; mount: block that is tried */
    uint32_t scan_at;      /* its first byte that was not looked at */
    uint32_t scan_limit;   /* end of what is scanned */
    uint32_t scan_segment;
    uint32_t scan_block; /* block of the segment that is in `block` */
    uint32_t scan_end;   /* behind the last record found */
    uint32_t region_blocks;
    uint32_t first_block;
    uint32_t durable_offset; /* everything before it is on the medium */
    uint32_t records;        /* in the open segment */
    uint32_t digest;         /* over their header CRCs */
    uint32_t read_segment;
    uint32_t read_offset;
    uint32_t mark_crc; /* of the first `mark_bytes` of the payload being appended */
    uint32_t mark_bytes;
    uint32_t
        evict_fill; /* bytes of `evict_bucket` that survive; mount: blocks written, bit per block */
    uint32_t
        evict_room; /* bytes that survivors may still take; mount: witness of the next header */
    uint32_t
        evict_need; /* of the record that asks for room, at least; mount: boot of the last record */
    uint32_t gaps;  /* durable GAP records, those that are gone included */
    uint32_t scan_crc;
    uint32_t scan_records; /* found, and their digest */
    uint32_t scan_digest;
    uint32_t scan_claim;    /* mount: end of the last record whose frame is not intact */
    uint32_t damaged;       /* found at mount: headers or blocks that could not be used */
    uint64_t scan_seq;      /* the next record has at least this number */
    uint32_t pending;       /* records not yet durable */
    uint32_t acked_durable; /* as the last superblock says */
    uint32_t boot_id;
    uint32_t direct; /* blocks in flight from the payload itself; mount: records are lost */
    int32_t last_error;
    uint32_t refound; /* of gap.card: what another mount finds again */
    const uint8_t *payload;
    uint8_t *read_out;
    uint32_t read_size;
    int32_t read_result;
    uint32_t ack_segment;
    uint32_t
        ack_records; /* mount: bytes before the last mark of the record that goes on, its CRC so far; evicting: records of the victim */
    uint32_t ack_digest;
    int32_t ack_result;
    uint64_t next_seq;
    uint64_t oldest_pending_us;
    uint64_t super_us; /* when the last superblock was written */
    drip_log_closed_t closed;
    drip_log_config_t config;
    drip_record_header_t header; /* being appended, or scanned */
    /* These outlive another mount. */
    drip_record_gap_t gap; /* what no durable GAP record tells; mount: the times are in use */
    drip_stream_t streams[DRIP_MAX_STREAMS];
    uint32_t lost;           /* frames accepted that never became durable */
    uint32_t evicted;        /* records dropped to make room */
    uint32_t errors;         /* failed transfers */
    uint32_t failed_segment; /* that `segment_fails` counts */
    uint16_t kept_log;       /* mount: which log it was before, */
    uint16_t kept_gaps;      /* and its GAP records: the low bits */
    uint8_t segment_fails;   /* writes that failed in this segment */
    uint8_t super_fails;     /* writes of a superblock that failed << 1 | which copy */
    uint8_t unsure;          /* whether a superblock or a GAP record is on the card */
    uint8_t stream_count;
    drip_superblock_t super; /* as on the card, or as it will be */
    drip_volume_place_t place;
    union {
        uint8_t bytes[DRIP_BLOCK_BYTES];
        drip_superblock_t super;
        drip_segment_header_t segment;
        drip_log_mark_t mark;
    } block; /* the last, partly filled block; or what mount and ack read */
    union {
        uint8_t bytes[DRIP_BLOCK_BYTES];
        drip_log_summary_t summary;
        drip_segment_header_t head;
        drip_record_gap_t gap;
    } copy; /* of a segment that is evicted; mount: the newest header; or the GAP record being appended */
} drip_log_t;

/* Writes an empty log: both superblocks. Blocking; for host tools and factory set-up.
 *
 * Memory: `work` is needed until it returns.
 * Power loss: until it returns, the region holds the log that it held before, or none.
 * Returns DRIP_ERR_OK, _ARGUMENT (geometry), _NO_CARD, _IO. */
int drip_log_format(const drip_port_t *port, const drip_log_geometry_t *geometry,
                    drip_superblock_t *work);

/* Starts mounting the region at `first_block` (0 blocks = to the end of the card); drip_log_step does
 * it. The card state goes from MOUNTING to READY, FOREIGN, ABSENT, PROTECTED
 * or ERROR. May be called again at any
 * time that no transfer is in flight or the card is gone: what was pending is lost then.
 *
 * Memory: `log` is 2 KiB, plus the caller's frame. Stream descriptors survive a second mount.
 * Before the first mount, `log` is all zeros. Returns DRIP_ERR_OK. */
int drip_log_mount(drip_log_t *log, const drip_port_t *port, const drip_log_config_t *config,
                   uint32_t first_block, uint32_t blocks);

/* Right after drip_log_mount: the place of the region, which the superblock is to remember. */
void drip_log_place(drip_log_t *log, const drip_volume_place_t *place);

/* Instead of a mount: there is no log to be had, for the reason that `card` and `error` give. */
void drip_log_refuse(drip_log_t *log, uint8_t card, int error);

/* Changes commit interval and full mode of a running log. */
void drip_log_configure(drip_log_t *log, const drip_log_config_t *config);

/* Names the streams that segment headers describe, from the next segment on.
 *
 * Returns DRIP_ERR_OK, or _ARGUMENT above DRIP_MAX_STREAMS. */
int drip_log_streams(drip_log_t *log, const drip_stream_t *streams, uint32_t count);

/* Hands the log a checkpoint of the device, at most DRIP_CHECKPOINT_BYTES. It is stored with the next
 * superblock, within a minute; the bytes are copied.
 *
 * Returns DRIP_ERR_OK, _ARGUMENT (length), _NO_CARD (not usable), _BUSY (a superblock is being written:
 * ask again). */
int drip_log_checkpoint_set(drip_log_t *log, const uint8_t *bytes, uint32_t length);

/* The checkpoint that mount found, or the one set since; `size` is the room in `out`.
 *
 * Returns its length, 0 when there is none (none was stored, or both superblocks were lost), _NO_CARD
 * (not usable), _ARGUMENT (it does not fit). */
int drip_log_checkpoint_get(const drip_log_t *log, uint8_t *out, uint32_t size);

/* Starts to write a superblock, and with it the checkpoint, at once instead of with the next one. At most
 * every 10 s: it wears the card.
 *
 * Returns DRIP_ERR_OK (started; poll with drip_log_checkpoint_poll), _BUSY (ask again), or why the card
 * does not take it. */
int drip_log_checkpoint_write(drip_log_t *log);

/* Returns DRIP_ERR_OK when it is written, _BUSY, or _NO_CARD. */
int drip_log_checkpoint_poll(const drip_log_t *log);

/* Does one piece of pending work: starts or polls one transfer, or checks one block. Never waits.
 *
 * Context: owner. Returns 1 while work is pending, 0 when idle (a group commit may still be due later:
 * go on calling). */
int drip_log_step(drip_log_t *log);

/* Starts to append a record. Fills in sequence number, boot id and sizes of `header`, whose
 * payload_bytes the caller sets (1..DRIP_MAX_FRAME_BYTES).
 *
 * Memory: `payload` must stay valid and unchanged until drip_log_busy returns 0; `header` is copied.
 * Power loss: durable when its last block is full and written, or after the next completed sync or
 * group commit; all or nothing.
 * The kind of the record is in header->flags; FRAME unless the caller says so. When records were lost
 * or refused before, a GAP record that says so follows.
 * In a log that is full, mode EVICT first answers BUSY while it makes room: it takes the best frames of
 * the oldest segment over into a new one, at most half of it, and drops the rest, which a GAP record
 * counts. Needs three segments. Once it had to, a frame that ranks below drip_log_level is REFUSED: not written
 * but counted with those. Never refused are records that are no frames, frames with NO_MODEL, and those of a
 * class that the newest segment has less of than `class_floor`.
 * Returns DRIP_ERR_OK, DRIP_LOG_REFUSED, _BUSY (ask again), _NO_CARD (not usable), _FULL, _ARGUMENT (size). */
int drip_log_append(drip_log_t *log, drip_record_header_t *header, const uint8_t *payload);

/* Returns 1 while an append still needs its payload. */
int drip_log_busy(const drip_log_t *log);

/* Asks for everything appended so far to become durable. Returns DRIP_ERR_OK or _NO_CARD; done when
 * drip_log_pending is 0. The next record starts in a new block. What a GAP record is to say is written, too,
 * when nothing else is going on and there is room. */
int drip_log_sync(drip_log_t *log);

/* Records not yet durable, the one being appended included. */
uint32_t drip_log_pending(const drip_log_t *log);

/* Frames that were accepted and never became durable because the card failed, since the first mount:
 * what was pending counts as lost when the log is mounted again. */
uint32_t drip_log_lost(const drip_log_t *log);

/* Records dropped to make room, or refused because there is none for them, since the first mount. */
uint32_t drip_log_evicted(const drip_log_t *log);

/* Percentile that a frame has to reach in a full log, mode EVICT; 0 while nothing had to be evicted. One of
 * the random share is drawn a number that has to reach it. */
uint16_t drip_log_level(const drip_log_t *log);

/* Positions: oldest byte, end of durable bytes, end, first byte that is not acknowledged. */
uint64_t drip_log_tail(const drip_log_t *log);
uint64_t drip_log_durable(const drip_log_t *log);
uint64_t drip_log_end(const drip_log_t *log);
uint64_t drip_log_acked(const drip_log_t *log);

/* Bytes of all segments together, 0 without a log. */
uint64_t drip_log_capacity(const drip_log_t *log);

/* Starts to read durable log bytes from `position`, a multiple of DRIP_BLOCK_BYTES, at most `size`
 * (rounded down to whole blocks), never past the end of a segment nor past the durable end. The unused
 * end of a closed segment reads as zeros.
 *
 * Memory: `out` of `size` bytes, valid until drip_log_read_poll is no longer BUSY.
 * Returns DRIP_ERR_OK, _BUSY, _NO_CARD (not usable), _GONE (below the tail: go on there), _RANGE
 * (nothing durable there), _ARGUMENT. */
int drip_log_read(drip_log_t *log, uint64_t position, uint8_t *out, uint32_t size);

/* Returns the number of bytes read, DRIP_ERR_BUSY, or the error that ended the read. */
int drip_log_read_poll(const drip_log_t *log);

/* Acknowledges a segment: the host holds all of it. Superblocks note it in batches; nothing of it is
 * written over before one that says so is on the card. In order, the oldest unacknowledged first; the
 * open segment is closed by it (the next append opens a new one). Records and digest are compared with
 * the header of the segment after it, or with those of the open one. When they differ, or damage hides
 * them, the segment is read again: damage may have come after it was written. With blocks that the
 * device cannot read it believes the host.
 *
 * Power loss: the last acknowledgements may be forgotten; the host is asked again.
 * Returns DRIP_ERR_OK (started; poll with drip_log_ack_poll), _BUSY, _STATE (not the next in order),
 * _NO_CARD. A segment below the acknowledged ones answers OK again: repeating is harmless. */
int drip_log_ack(drip_log_t *log, uint32_t segment, uint32_t records, uint32_t digest);

/* Returns DRIP_ERR_OK when the acknowledgement is accepted, _BUSY, _DIGEST, or an I/O error. */
int drip_log_ack_poll(const drip_log_t *log);

#endif
