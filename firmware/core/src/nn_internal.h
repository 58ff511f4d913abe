/* Shared by nn.c and nn_open.c. Internal to the core. */
#ifndef DRIP_NN_INTERNAL_H
#define DRIP_NN_INTERNAL_H

#include "drip/nn.h"
#include "kernels/kernels.h"

_Static_assert(sizeof(drip_nn_t) <= 320, "the context must stay small");

/* Resolves operator `index`: shapes, and addresses when the arena is bound. */
void drip_nn_resolve(const drip_nn_t *nn, uint32_t index, drip_kernel_t *kernel);

/* nn_load.c. Opens the section FRONTEND, if any, after the input was opened: `samples` is how many a frame
 * has. Returns DRIP_ERR_OK or _CORRUPT. */
int drip_nn_open_frontend(drip_nn_t *nn, uint32_t samples);

/* 1 when `size` bytes at `offset` lie inside `total` bytes and `offset` is a multiple of `align`. */
static inline int drip_range_ok(uint32_t offset, uint32_t size, uint32_t total, uint32_t align)
{
    return offset % align == 0 && offset <= total && size <= total - offset;
}

/* The golden section, or NULL; `is_sound` says what its inputs are. */
const drip_blob_golden_t *drip_nn_golden(const drip_nn_t *nn, int *is_sound);

#endif
