/* Grad-CAM in steps, so that a score can go on from one class to the difference of two. Internal to
 * the core; `scratch` as for drip_cam_sum, classes exist, features are there. */
#ifndef DRIP_CAM_INTERNAL_H
#define DRIP_CAM_INTERNAL_H

#include "drip/cam.h"

/* 0 leaves heads with hidden layers out of an image whose model has none: 2 KiB. */
#ifndef DRIP_HIDDEN_HEADS
#define DRIP_HIDDEN_HEADS 1
#endif

/* Units of the lowest hidden layer, and the layers above it; 0 without hidden layers. */
static inline uint32_t cam_hidden(const drip_cam_t *cam)
{
    return DRIP_HIDDEN_HEADS ? cam->head->hidden : 0u;
}

static inline uint32_t cam_uppers(const drip_cam_t *cam)
{
    return DRIP_HIDDEN_HEADS ? cam->head->uppers : 0u;
}

/* Units of the layer below upper hidden layer n. */
uint32_t drip_cam_units_below(const drip_cam_t *cam, uint32_t n);

/* Two hidden units of which one at least is active. */
typedef struct {
    uint32_t row;   /* of the table, for each channel the one unit and the other: its first entry's
                     * number, with DSP instructions its address */
    uint32_t dense; /* their weights, 16 bits each; 0 of one that is not active */
} drip_cam_units_t;

/* Only where DRIP_DSP is defined.
 *
 * Weights of 8 * blocks channels from pairs of units; row 0 follows the last pair, one at least
 * comes before. Stores them in fours in the order 0 2 1 3, or subtracts them from what is there. Rows
 * move on to the next channel. */
void drip_cam_dsp_weigh(drip_cam_units_t *units, int16_t *weights, uint32_t blocks, uint32_t shift,
                        int minus);

/* Sum of the positive ones of `start` plus the dot product of each of 2 * pairs positions. At least one
 * pair and 4 channels, a multiple of 4; `x` is a multiple of 4 too. */
uint32_t drip_cam_dsp_total(const int16_t *weights, const int8_t *x, uint32_t channels,
                            uint32_t pairs, uint32_t start);

/* Sets the channel weights to those of a class. */
void drip_cam_begin(const drip_cam_t *cam, int class_index, void *scratch);

/* Subtracts the channel weights of a class. */
void drip_cam_subtract(const drip_cam_t *cam, int class_index, void *scratch);

/* Sum over positions of the positive part of the map of these weights; `map` may be NULL. */
int32_t drip_cam_total(const drip_cam_t *cam, void *scratch, int32_t *map);

/* The same; `peak`, unless NULL, becomes the largest value of the map if that is larger. */
int32_t drip_cam_total_peak(const drip_cam_t *cam, void *scratch, int32_t *map, int32_t *peak);

#endif
