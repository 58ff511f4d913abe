/* The device: one owner that runs every stage cooperatively. Nothing in it waits.
 *
 * Answers. A response has the type of its request with DRIP_RESPONSE set, and the request's id. HELLO,
 * STATUS, CONFIG_GET, FEED and SCORE answer with `response` and then their struct; TIME, READ, ACK
 * and MODEL with a struct that starts like `response`; the others with `response` alone. An EVENT
 * is a frame of type DRIP_FRAME_EVENT with id 0. Frames with the RESPONSE bit, and EVENTs, are ignored.
 * Requests are answered in order, but a request that can be answered at once overtakes a FEED or SCORE
 * that still computes.
 *
 * READ streams: up to DRIP_READ_QUEUE ranges wait and are sent in order, chunk by chunk, without waiting
 * for the host. Other answers and EVENTs go between two chunks; MODEL work pauses them; HELLO, RESET
 * and the flag FRESH end them.
 *
 * FEED and SCORE: chunks come in order, offset 0 starts again. All but the last are answered at once,
 * `detail` = the offset wanted next; DRIP_ERR_RANGE means that it was another one. The last is answered
 * with `result` after the decision. A repeated last chunk (same id, token and bytes) gets the same
 * answer and is not taken twice. DRIP_ERR_BUSY: the frame before is still being logged. When a frame
 * was chosen but could not be stored, keep is 0, reason is not, and `detail` is -DRIP_ERR_*.
 *
 * A HELLO of another schema is answered, but then CONFIG_SET, FEED, SCORE and MODEL answer
 * DRIP_ERR_SCHEMA until a HELLO of this schema was seen.
 *
 * Settings are kept in the journal of the model slots, all but EVENTS; CONFIG_SET is answered when they
 * are. A board without slots keeps them until the next restart.
 *
 * Queue: frames of the board's own sensor wait in `capture` while one is in work or the card is busy.
 * When it is full the sensor is not asked: what the port must drop then it counts with
 * drip_device_lost. How many frames a busy card asks for: docs/PORTING.md.
 *
 * State: what the policy has learnt and the powered-on time are kept on the card, from 10 s after a
 * start on, then more and more rarely (an eighth of the uptime, at most a minute), and with every
 * superblock; before RESET, too. The first card of a boot that holds a state of this device gives it back.
 *
 * BAUD: after the answer the line changes its rate; without CONFIRM at the new one within 1.5 s, or after
 * 3 s of nothing but garbage later on, it changes back. The rate after reset needs no CONFIRM.
 *
 * EVENTS: BOOT is sent once after every start; the others when the host has asked for them. */
#ifndef DRIP_DEVICE_H
#define DRIP_DEVICE_H

#include "drip/link.h"
#include "drip/log.h"
#include "drip/policy.h"
#include "drip/slot.h"
#include "drip/volume.h"

enum { DRIP_FIRMWARE_VERSION = 0x000100 /* major << 16 | minor << 8 | patch */ };

/* A queue for 20 frames per second on a card that is busy for 100 ms often and 500 ms rarely. */
enum { DRIP_QUEUE_FRAMES = 16 };

/* Memory that the caller lends for the device's life. */
typedef struct {
    uint8_t *arena; /* aligned to 16 */
    uint32_t arena_bytes;
    uint8_t *capture;       /* capture_frames times one frame, each and all aligned to 8 */
    uint32_t capture_bytes; /* largest frame */
    uint8_t
        *scratch; /* of the score, aligned to 4; 2 bytes per feature channel and more, see SPEC */
    uint32_t scratch_bytes;
    const void *fixed_model; /* runs when no slot holds a model; aligned to 16; may be NULL */
    uint32_t fixed_model_bytes;
    uint16_t capture_frames; /* 0 counts as 1 */
    drip_frame_t *captured;  /* capture_frames entries; may be NULL for one frame */
} drip_device_memory_t;

/* Frames in `capture`, oldest first. */
typedef struct {
    uint16_t first;
    uint16_t count; /* that are in work or wait */
    uint8_t taken;  /* the frame in work is the first of them */
    uint8_t reserved[3];
} drip_queue_t;

/* What a READ request asked for and has not got yet. */
typedef struct {
    uint64_t position; /* of the next chunk */
    uint16_t blocks;   /* that are left */
    uint16_t chunk;    /* bytes */
    uint16_t id;
    uint16_t number; /* of the next chunk */
} drip_read_range_t;

typedef struct {
    drip_read_range_t range[DRIP_READ_QUEUE]; /* served in order */
    uint8_t count;
    uint8_t reading; /* the log reads into the link's buffer */
    uint8_t stale;   /* what it reads is no longer wanted */
    uint8_t reserved[5];
} drip_reader_t;

/* BAUD */
typedef struct {
    uint64_t since_us; /* stage */
    uint64_t heard_us; /* last valid frame */
    uint32_t present;
    uint32_t before; /* comes back without CONFIRM */
    uint32_t next;
    uint8_t stage;
    uint8_t reserved[3];
} drip_baud_t;

/* A device. Members are private; the functions below and STATUS tell what a user may know. Bytes come
 * first, large members last: a short instruction of a Cortex-M reaches bytes up to 31, words up to 124. */
typedef struct {
    const drip_port_t *port;
    uint8_t pending_type; /* request whose response waits for work to finish; 0 = none */
    uint8_t pending_ready;
    uint8_t done_type; /* 0 = `feed_data` holds no frame that was answered */
    uint8_t holding;   /* `held` is valid */
    uint8_t stage;     /* what the present frame waits for */
    uint8_t scoring;   /* the present frame is only scored */
    uint8_t model_stage;
    uint8_t model_op;
    uint8_t model_reopen;
    uint8_t model_told; /* BUSY was sent for the erase at hand */
    uint8_t has_model;
    uint8_t score_wanted; /* score_kind, 0 = what the model is calibrated for */
    uint8_t schema_ok;
    uint8_t events;
    uint8_t events_due; /* bit per enum DRIP_EVENT_* */
    uint8_t card_state; /* as last seen */
    uint8_t finding;    /* `volume` is at work, the log is not */
    uint8_t reset_wanted;
    uint8_t restored;    /* there is nothing more to learn from a card */
    uint8_t saving;      /* the state goes to the card before a restart */
    uint8_t clock_due;   /* the host's clock is to be noted in the log */
    uint16_t pending_id; /* of `pending_type` */
    uint16_t done_id;    /* FEED or SCORE that `result` belongs to */
    uint32_t feed_bytes; /* received of `feed`; 0 = no frame arrives */
    uint8_t *feed_data;  /* where `feed` goes, or went */
    uint32_t quantised;  /* elements of the frame already in the input */
    uint32_t golden;     /* self-test: next input */
    uint32_t seed;
    int32_t outcome; /* of the last frame's record, or of a trial */
    uint32_t powered_s;
    uint32_t handed_s;       /* powered_s then */
    uint32_t clock_boot;     /* boot that `clock` was noted for */
    uint32_t state_boot;     /* boot of the log whose state was taken */
    uint32_t sync_boot;      /* boot of the log that a SYNC waits for */
    drip_frame_t frame;      /* in work */
    uint64_t started_us;     /* of the present frame */
    uint64_t feed_us;        /* last chunk */
    uint64_t mount_us;       /* last try */
    uint64_t reset_us;       /* reset wanted since */
    uint64_t unix_offset_us; /* TIME: unix = monotonic + this; 0 = unknown */
    uint64_t position;       /* READ, SYNC: of the pending request */
    uint64_t powered_at_us;  /* when the last whole second of powered_s was over */
    uint64_t handed_us;      /* when the log got the present state */
    uint64_t super_us;       /* when its newest superblock then had been written */
    drip_queue_t queue;
    drip_result_t result; /* of the frame in work, then of the last one */
    drip_feed_t feed;     /* the frame that arrives */
    drip_device_memory_t memory;
    drip_log_config_t log_config;
    drip_link_frame_t held;    /* request that is being handled */
    drip_record_clock_t clock; /* as last noted in the log */
    drip_event_kept_t kept;
    drip_baud_t baud;
    drip_reader_t reader;
    drip_score_t score;
    drip_status_t status; /* counters; the rest is filled in when asked */
    drip_nn_t nn;
    drip_slot_t slot;
    drip_volume_t volume;
    drip_policy_t policy;
    drip_log_t log;
    drip_link_t link;
} drip_device_t;

/* Starts a device: slots, model, log. The card is mounted by drip_device_step.
 *
 * Memory: `device`, `port` and all of `memory` stay valid. Context: owner. Takes one pass over the
 * model. Returns DRIP_ERR_OK, also without a model or a card (both are reported by STATUS), or
 * _ARGUMENT (memory missing or misaligned). */
int drip_device_init(drip_device_t *device, const drip_port_t *port,
                     const drip_device_memory_t *memory);

/* Does a bounded piece of work: call it for ever. At most four answers or log blocks, and one piece of
 * an inference (under 5 ms on a 100 MHz Cortex-M4).
 *
 * Only opening a pushed model takes longer: one pass over the blob, at TRIAL.
 * Returns 1 when there is more to do at once, 0 when the caller may sleep until the next interrupt or
 * millisecond. */
int drip_device_step(drip_device_t *device);

/* Offers a captured frame directly (host simulation, ports without a sensor function).
 *
 * Memory: `frame->data` stays valid until drip_device_idle returns 1.
 * Returns DRIP_ERR_OK, DRIP_ERR_BUSY while another frame is in work, or DRIP_ERR_ARGUMENT (size). */
int drip_device_offer(drip_device_t *device, const drip_frame_t *frame);

/* Counts frames that a port had to drop because no buffer was free. */
void drip_device_lost(drip_device_t *device, uint32_t frames);

/* Returns 1 when no frame is in work or waits; `result`, unless NULL, gets the last decision. */
int drip_device_idle(const drip_device_t *device, drip_result_t *result);

/* Writes what deep sleep should keep to `out`, DRIP_DEVICE_STATE_BYTES: settings, what the policy has
 * learnt, powered-on time. First what was logged is made durable.
 *
 * Power loss: after it, memory and power of everything but `out` may go.
 * Returns DRIP_DEVICE_STATE_BYTES, or DRIP_ERR_BUSY: step on and ask again. */
int drip_device_save(drip_device_t *device, uint8_t *out);

/* After drip_device_init, before the first frame: goes on from such a state, as if it had not slept.
 * The time asleep counts as unpowered.
 *
 * Returns DRIP_ERR_OK; _MAGIC, _VERSION, _CRC or _CORRUPT when these bytes are none, _STATE when they are
 * of another device or it is too late. Then nothing has changed. Of another model settings and time count. */
int drip_device_restore(drip_device_t *device, const uint8_t *in);

/* Asks for a restart, as RESET does, or for the end before power is switched off: no more frames are taken, what
 * was logged and learnt goes to the card, and then, after two seconds at most, the port's `reset` is
 * called. Go on calling drip_device_step. */
void drip_device_restart(drip_device_t *device);

/* Fills in the present status. */
void drip_device_status(const drip_device_t *device, drip_status_t *status);

/* Changes a setting (enum DRIP_CONFIG_*). Returns DRIP_ERR_OK, _ARGUMENT, _NO_CAM or _UNSUPPORTED. */
int drip_device_config(drip_device_t *device, uint16_t key, uint32_t value);

#endif
