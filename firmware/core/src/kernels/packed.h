/* Portable kernels for the packed weight layouts (layouts.h), for processors without DSP
 * instructions. Units as in the plain kernels. Internal to the core. */
#ifndef DRIP_KERNELS_PACKED_H
#define DRIP_KERNELS_PACKED_H

#include "kernels.h"
#include "layouts.h"

/* Adds what a convolution needs to its plan. */
void drip_conv_packed_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_conv_packed_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
void drip_dense_packed_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
void drip_depthwise_packed_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

#endif
