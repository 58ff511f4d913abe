/* Stage 3, cam: closed-form Grad-CAM of the last spatial tensor, in integers.
 *
 * Grad-CAM (Selvaraju et al., arXiv 1610.02391): alpha_k = mean over positions of dY_c/dA_k(p),
 * CAM_c(p) = sum_k alpha_k A_k(p). For pool/flatten -> dense heads dY/dA is known at compile time;
 * with hidden ReLU layers it depends on which hidden units are active. No backward pass. */
#ifndef DRIP_CAM_H
#define DRIP_CAM_H

#include "drip/nn.h"

/* A Grad-CAM head. Points into the blob and the network's arena. */
typedef struct {
    const drip_nn_t *nn;
    const drip_blob_cam_t *head;
    const int16_t *table; /* DIRECT: [classes][channels]; HIDDEN: [units / 2][channels][2] */
    const int8_t *dense;  /* HIDDEN: [classes][units of the topmost hidden layer] */
    const drip_blob_cam_layer_t *uppers; /* head->uppers hidden layers, topmost first */
    const int8_t *matrices;              /* of the uppers: [units][units below], one by one */
    int32_t zero_point;                  /* of the features */
} drip_cam_t;

/* Opens the Grad-CAM head of a network.
 *
 * Checks that no input can overflow the 32-bit sums below.
 * Returns DRIP_ERR_OK, _NO_CAM or _CORRUPT. */
int drip_cam_open(drip_cam_t *cam, const drip_nn_t *nn);

/* Bytes of scratch that drip_cam_sum needs (channel weights of one map). */
uint32_t drip_cam_scratch_bytes(const drip_cam_t *cam);

/* Sum over positions of ReLU(CAM_c), or of ReLU(CAM_c - CAM_minus) when `minus` >= 0.
 *
 * Memory: `scratch` of drip_cam_scratch_bytes, aligned to 4; `map`, unless NULL, gets one int32 per
 * position (before ReLU), row by row. Context: owner, after an inference.
 * Returns DRIP_ERR_OK and the sum in `*sum` (0..2^31-1, units of head->scale), or _ARGUMENT. */
int drip_cam_sum(const drip_cam_t *cam, int class_index, int minus, void *scratch, int32_t *map,
                 int32_t *sum);

#endif
