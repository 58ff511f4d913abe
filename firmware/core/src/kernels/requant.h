/* Fixed-point arithmetic of TensorFlow Lite, with double rounding. Internal to the core.
 *
 * Sums wrap (unsigned) instead of overflowing: a hostile blob may give wrong numbers, never
 * undefined behaviour. Multipliers are >= 0 and shifts in range because opening checked them. */
#ifndef DRIP_KERNELS_REQUANT_H
#define DRIP_KERNELS_REQUANT_H

#include "drip/wire.h"

/* Whether this build has the DSP kernels. They need not be asked for: the compiler says what the
 * processor has. DRIP_PORTABLE leaves them out. */
#if defined(__ARM_FEATURE_DSP) && defined(__thumb2__) && !defined(DRIP_PORTABLE)
#define DRIP_DSP 1
#endif

enum { DRIP_SHIFT_MIN = -31, DRIP_SHIFT_MAX = 30 };

static inline int drip_scale_ok(int32_t mult, int32_t shift)
{
    return mult >= 0 && shift >= DRIP_SHIFT_MIN && shift <= DRIP_SHIFT_MAX;
}

static inline int drip_zero_ok(int32_t zero)
{
    return zero >= -128 && zero <= 127;
}

static inline int32_t drip_add32(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

static inline int32_t drip_shl32(int32_t a, uint32_t bits)
{
    return (int32_t)((uint32_t)a << bits);
}

/* High word of 2ab, rounded half up. */
static inline int32_t drip_mulhi(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + (1 << 30)) >> 31);
}

/* x / 2^bits, rounded half away from zero; bits 0..31. */
static inline int32_t drip_rounding_shift(int32_t x, uint32_t bits)
{
    if (bits == 0)
        return x;
    const int32_t t = drip_add32(x, x >> 31);
    return (t >> bits) + ((t >> (bits - 1)) & 1);
}

/* x * mult / 2^31 * 2^shift. */
static inline int32_t drip_scale_inline(int32_t x, int32_t mult, int32_t shift)
{
    if (shift <= 0)
        return drip_rounding_shift(drip_mulhi(x, mult), (uint32_t)-shift);
    return drip_mulhi(drip_shl32(x, (uint32_t)shift), mult);
}

#ifdef DRIP_DSP
/* The DSP kernels have their own; what is left can share one copy. */
int32_t drip_scale(int32_t x, int32_t mult, int32_t shift);
#else
static inline int32_t drip_scale(int32_t x, int32_t mult, int32_t shift)
{
    return drip_scale_inline(x, mult, shift);
}
#endif

static inline int8_t drip_clamp(int32_t x, int32_t low, int32_t high)
{
    return (int8_t)(x < low ? low : x > high ? high : x);
}

#endif
