/* Stage 5, policy: keep or drop. */
#ifndef DRIP_POLICY_H
#define DRIP_POLICY_H

#include "drip/score.h"

enum {
    DRIP_THRESHOLD_CALIBRATED = 65536,  /* use the model's own threshold per class */
    DRIP_REDUNDANCY_CALIBRATED = 65536, /* use the model's own distance */
    DRIP_TARGET_ALL = 65536,
    DRIP_THUMB_BYTES = 28,
    DRIP_THUMB_RING = 8,
};

/* Settings; see enum DRIP_CONFIG_*. */
typedef struct {
    uint32_t threshold; /* percentile 0..65535, or DRIP_THRESHOLD_CALIBRATED */
    uint32_t every_k;   /* DRIP_POLICY_EVERY_KTH: 1.., the first frame is kept */
    uint32_t seed;
    uint32_t target;       /* share to keep, x 65536; 0 = as calibrated */
    uint32_t pace_s;       /* the card shall be full then; 0 = off */
    uint32_t redundancy;   /* least distance, 1..65535; 0 = off; DRIP_REDUNDANCY_CALIBRATED */
    uint16_t random_share; /* of all frames, 0..65535 = never..always */
    uint16_t threshold_high;
    uint16_t burst; /* frames of credit, 0..16383 */
    uint16_t floor_share;
    uint16_t drift_limit; /* stability index x 1000; 0 = none */
    uint8_t floor_count;  /* 0..30 */
    uint8_t kind;         /* enum DRIP_POLICY_* */
} drip_policy_config_t;

/* Small picture of an input: means of a grid of cells, 128 above their mean; 0 behind the last. */
typedef struct {
    uint8_t cell[DRIP_THUMB_BYTES];
} drip_thumb_t;

/* How full the card gets, and how fast. Time in ticks of 2^20 us. */
typedef struct {
    uint32_t left;        /* until the card shall be full */
    uint32_t free;        /* blocks that were free when last looked */
    uint32_t tick;        /* then */
    uint32_t since;       /* start of the present count of frames */
    uint32_t frames;      /* counted since */
    uint32_t rate_frames; /* the last complete count, and */
    uint32_t rate_ticks;  /* how long it took */
    uint32_t share;       /* to keep, x 65536; 0 = not known yet */
    uint32_t started;
} drip_pace_t;

/* State of the policy. Treat all but config as private; under 1 KiB. */
typedef struct {
    uint8_t drop;        /* enum DRIP_DROP_* of the last frame */
    uint8_t class_count; /* in use */
    uint8_t thumb_cells; /* of `thumb`; 0 = there is none */
    uint8_t thumb_next;  /* place in the ring */
    uint8_t thumb_count;
    uint8_t drifted;   /* the limit was passed and not yet left */
    uint8_t drift_due; /* set then; whoever reports it clears it */
    uint8_t reserved;
    uint16_t fast;      /* short and long mean of the percentiles */
    uint16_t slow;      /* */
    uint16_t held;      /* percentile that the last frame was held against */
    uint16_t window;    /* frames in the histogram */
    uint16_t psi_score; /* when the last window was full */
    uint16_t psi_class;
    drip_policy_config_t config;
    uint32_t count;     /* frames decided */
    uint32_t tag;       /* model and score that the classes belong to */
    int32_t credit;     /* of the burst rule, frames x 65536 */
    int32_t behind;     /* frames short of the target, x 65536 */
    uint32_t target;    /* last aimed at, x 65536 */
    uint32_t redundant; /* frames dropped as such */
    drip_rng_t rng;
    drip_pace_t pace;
    uint16_t
        histogram[DRIP_HISTOGRAM_BINS]; /* percentiles of late; halved when the window is full */
    drip_policy_class_t classes[DRIP_MAX_CLASSES]; /* further classes share the last one */
    drip_thumb_t thumb;                            /* of the present frame */
    drip_thumb_t ring[DRIP_THUMB_RING];            /* of frames kept lately */
} drip_policy_t;

/* Default settings, those of docs/SELECTION.md: TARGET at the calibrated share, 5 % random share,
 * redundancy as calibrated, seed 1. */
void drip_policy_defaults(drip_policy_config_t *config);

/* Starts a policy. Returns DRIP_ERR_OK or DRIP_ERR_ARGUMENT. */
int drip_policy_init(drip_policy_t *policy, const drip_policy_config_t *config);

/* Changes settings but the seed; what was learned stays. Returns DRIP_ERR_OK or DRIP_ERR_ARGUMENT. */
int drip_policy_configure(drip_policy_t *policy, const drip_policy_config_t *config);

/* Whether settings are possible. Returns DRIP_ERR_OK or DRIP_ERR_ARGUMENT. */
int drip_policy_check(const drip_policy_config_t *config);

/* Tells the policy which model and score it decides on from now on. What it knows of the classes is
 * forgotten when it knows it of another model or score. */
void drip_policy_attach(drip_policy_t *policy, const drip_score_t *score);

/* Looks at the input of the network, for the redundancy rule: after quantisation, before
 * drip_nn_begin. Without this call a frame is like no other. */
void drip_policy_look(drip_policy_t *policy, const drip_nn_t *nn);

/* Tells how full the card is, for pacing: before a decision.
 *
 * `tick` is time in 2^20 us; `free_blocks` may still be written before something that the host does not
 * have is lost; `frame_bytes` with the header of its record. */
void drip_policy_pace(drip_policy_t *policy, uint32_t tick, uint32_t free_blocks,
                      uint32_t frame_bytes);

/* Decides on one frame, in arrival order.
 *
 * `score` is the stage that made `result` (its calibration is used); NULL when there is no model:
 * a rule that needs scores keeps every frame then. So does a calibrated threshold or target where the
 * model is not calibrated. Random share, floors and redundancy belong to DRIP_POLICY_THRESHOLD and
 * _TARGET; the other rules are exact. The rules: docs/SPEC.md.
 * Returns reason bits (enum DRIP_REASON_*): 0 = drop, policy->drop says why. */
int drip_policy_decide(drip_policy_t *policy, const drip_score_t *score,
                       const drip_score_result_t *result);

/* Population stability index of counts against shares (x 65536), x 1000.
 *
 * Range: 1..64 bins; counts add up to 1..65535 or 0, which gives 0. */
uint32_t drip_policy_psi(const uint16_t *counts, const uint16_t *shares, uint32_t bins);

/* Fills in what STATUS says about the policy, but the counters of decisions. */
void drip_policy_status(const drip_policy_t *policy, drip_status_t *status);

/* Makes the small picture of the input of a network and counts its cells, 1..DRIP_THUMB_BYTES. */
uint32_t drip_policy_thumb(const drip_nn_t *nn, drip_thumb_t *out);

/* Mean distance of the cells of two pictures, x 16. */
uint32_t drip_policy_distance(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t cells);

/* Writes the state of the policy (struct policy_state) for a checkpoint; settings are not in it.
 *
 * Range: 164 bytes hold 16 classes in full, 132 without what was kept of them; where that does not
 * fit, thresholds are written, as many as fit. At least 36 bytes.
 * Returns the bytes written, or DRIP_ERR_MEMORY. */
int drip_policy_save(const drip_policy_t *policy, void *out, uint32_t capacity);

/* Goes on from a saved state; unknown bytes behind it are ignored. What was saved of another model or
 * score is skipped, so attach first. Damaged or foreign bytes change nothing.
 *
 * Returns DRIP_ERR_OK, _SHORT, _VERSION or _CORRUPT. */
int drip_policy_restore(drip_policy_t *policy, const void *state, uint32_t bytes);

#endif
