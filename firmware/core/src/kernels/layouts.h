/* Weight layouts of a blob (blob_op.layout_id); made by host/drip/compile/layouts.py. */
#ifndef DRIP_KERNELS_LAYOUTS_H
#define DRIP_KERNELS_LAYOUTS_H

#include "drip/wire.h"

/* DRIP_OP_FLAG_FAST_REQUANT: a kernel may ignore it; a wrong one gives wrong numbers only. */

/* Bytes of a kernel row of `taps` (kernel_w * in_c for PAIRS, kernel_w for PLANES). */
static inline uint32_t drip_layout_row(uint32_t taps)
{
    return (taps + 3U) & ~3U;
}

/* PLANES: where the weight of (channel, row ky, tap kx) lies; `row` = drip_layout_row. A one-wide
 * kernel over a one-wide tensor is stored transposed: kernel_h = 1, ky = 0, tap = ky of the kernel. */
static inline uint32_t drip_layout_planes(uint32_t channel, uint32_t kernel_h, uint32_t row,
                                          uint32_t ky, uint32_t tap)
{
    return (channel * kernel_h + ky) * row + (tap & ~3U) + (tap & 1U) * 2U + ((tap >> 1) & 1U);
}

#endif
