/* Stage 1, frame: the sensor frame as captured, and its way into the int8 input of the model. */
#ifndef DRIP_FRAME_H
#define DRIP_FRAME_H

#include "drip/wire.h"

/* A captured frame. `data` stays valid and unchanged until the device has decided on the frame and,
 * if it was kept, until the log has taken all of its bytes. */
typedef struct {
    const uint8_t *data;
    uint32_t size;    /* bytes, 1..DRIP_MAX_FRAME_BYTES */
    uint64_t time_us; /* monotonic capture time */
    uint16_t stream_id;
    uint16_t reserved;
    uint32_t token; /* echoed in the result; FEED sets it */
} drip_frame_t;

/* Input description of a model: dtype, shape and the affine map per channel. Points into the blob. */
typedef struct {
    drip_blob_input_t desc;
    const drip_blob_affine_t *affine; /* desc.channels entries */
    uint32_t elements; /* of the int8 input; of the frame, too, without a front-end */
} drip_frame_input_t;

/* Quantises `count` elements of a frame, from element `first` on, into the model's input.
 *
 * q = clamp((raw * mult + add) >> shift, -128, 127) with the affine of the element's channel
 * (channel = index mod desc.channels). The host computes mult, add and shift (docs/SPEC.md).
 * Context: owner; splitting a frame over several calls gives the same bytes.
 * Returns DRIP_ERR_OK, or DRIP_ERR_RANGE when the frame is not as long as the model wants, or the model has
 * a front-end (drip_nn_load). */
int drip_frame_quantise(const drip_frame_input_t *input, const drip_frame_t *frame, uint32_t first,
                        uint32_t count, int8_t *out);

#endif
