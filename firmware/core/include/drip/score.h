/* Stage 4, score: one number per frame, higher = the model would learn more from it. */
#ifndef DRIP_SCORE_H
#define DRIP_SCORE_H

#include "drip/bytes.h"
#include "drip/cam.h"

enum { DRIP_SCORE_LAST = DRIP_SCORE_CAM_PAPER_LOW };

/* What a score stage needs. Set up by drip_score_open. */
typedef struct {
    const drip_nn_t *nn;
    drip_cam_t cam; /* valid when has_cam */
    uint8_t has_cam;
    uint8_t kind; /* enum DRIP_SCORE_* */
    uint16_t classes;
    const int32_t *knots;       /* [classes][DRIP_KNOTS], NULL when not calibrated for this kind */
    const uint16_t *thresholds; /* [classes], percentile, NULL when not calibrated */
    const drip_blob_calibration_t *calibration; /* NULL when not calibrated */
    const uint16_t *shares; /* [DRIP_HISTOGRAM_BINS], [classes]; NULL when not recorded */
    drip_rng_t rng;         /* DRIP_SCORE_RANDOM */
} drip_score_t;

/* The score of one frame. */
typedef struct {
    int32_t raw; /* higher = more important */
    /* Against the calibration of the predicted class, 0..DRIP_PERCENTILE_ONE. Without one: of
     * RANDOM scores their own rank; of all others ONE, as nothing shows that a frame is dull. */
    uint16_t percentile;
    uint16_t class_1; /* predicted class; ties go to the lower index */
    uint16_t class_2; /* runner-up; equals class_1 when there is one class */
    int16_t logit_1;
    int16_t logit_2;
} drip_score_result_t;

/* Selects a score for a network and finds its calibration in the blob.
 *
 * Returns DRIP_ERR_OK; DRIP_ERR_NO_CAM for a CAM score on a model without a head;
 * DRIP_ERR_UNSUPPORTED for an unknown kind; DRIP_ERR_CORRUPT. */
int drip_score_open(drip_score_t *score, const drip_nn_t *nn, uint8_t kind, uint32_t seed);

/* Bytes of scratch that drip_score_compute needs. */
uint32_t drip_score_scratch_bytes(const drip_score_t *score);

/* Scores the frame that was just inferred.
 *
 * Memory: `scratch` of drip_score_scratch_bytes, aligned to 4. Context: owner.
 * The definition of every kind: docs/SPEC.md. Returns DRIP_ERR_OK. */
int drip_score_compute(drip_score_t *score, void *scratch, drip_score_result_t *out);

/* Percentile of a raw score in a table of DRIP_KNOTS ascending quantiles, linear between knots.
 *
 * Range: below the first knot 0, at or above the last DRIP_PERCENTILE_ONE. */
uint16_t drip_score_percentile(const int32_t *knots, int32_t raw);

/* Percentile of a score that goes on beyond what calibration saw, by the width of the nearest quarter
 * of its scores: frames can be told apart there, too.
 *
 * Range: -32768 .. 98303; the percentile itself without calibration. Returns the rank. */
int32_t drip_score_rank(const drip_score_t *score, const drip_score_result_t *result);

#endif
