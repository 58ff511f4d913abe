/* The general requantisation, once, for what the DSP kernels leave to the portable ones. */
#include "kernels.h"

#ifdef DRIP_DSP

int32_t drip_scale(int32_t x, int32_t mult, int32_t shift)
{
    return drip_scale_inline(x, mult, shift);
}

void drip_emit(const drip_kernel_t *k, uint32_t channel, uint32_t sum, int8_t *y)
{
    drip_emit_inline(k, channel, sum, y);
}

#else
typedef int drip_requant_dsp_unused_t;
#endif
