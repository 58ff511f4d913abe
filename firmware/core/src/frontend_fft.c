#include "frontend_fft.h"

typedef struct {
    int32_t cosine;
    int32_t sine;
} twiddle_t;

/* cos and sin of 2 pi index / points, for index up to points / 2. */
static twiddle_t twiddle(const int16_t *sine, uint32_t points, uint32_t index)
{
    const uint32_t quarter = points / 4;
    twiddle_t w;
    if (index <= quarter) {
        w.cosine = sine[quarter - index];
        w.sine = sine[index];
    } else {
        w.cosine = -(int32_t)sine[index - quarter];
        w.sine = sine[2 * quarter - index];
    }
    return w;
}

/* A complex value times cos - i sin. */
static int32_t turn_re(int32_t re, int32_t im, twiddle_t w)
{
    return (int32_t)(((int64_t)re * w.cosine + (int64_t)im * w.sine + (1 << 14)) >> 15);
}

static int32_t turn_im(int32_t re, int32_t im, twiddle_t w)
{
    return (int32_t)(((int64_t)im * w.cosine - (int64_t)re * w.sine + (1 << 14)) >> 15);
}

static void reverse_bits(int32_t *z, uint32_t count)
{
    for (uint32_t i = 1, j = 0; i < count; i++) {
        uint32_t bit = count / 2;
        for (; (j & bit) != 0; bit /= 2)
            j &= ~bit;
        j |= bit;
        if (i < j) {
            const int32_t re = z[2 * i], im = z[2 * i + 1];
            z[2 * i] = z[2 * j];
            z[2 * i + 1] = z[2 * j + 1];
            z[2 * j] = re;
            z[2 * j + 1] = im;
        }
    }
}

static void butterfly(int32_t *a, int32_t *b, twiddle_t w)
{
    const int32_t re = turn_re(b[0], b[1], w);
    const int32_t im = turn_im(b[0], b[1], w);
    b[0] = (a[0] - re) >> 1;
    b[1] = (a[1] - im) >> 1;
    a[0] = (a[0] + re) >> 1;
    a[1] = (a[1] + im) >> 1;
}

int32_t drip_fft_real(int32_t *values, uint32_t points, const int16_t *sine)
{
    const uint32_t count = points / 2; /* even samples are real parts, odd ones imaginary */
    int32_t halvings = 0;
    reverse_bits(values, count);
    for (uint32_t half = 1; half < count; half *= 2) {
        for (uint32_t k = 0; k < half; k++) {
            const twiddle_t w = twiddle(sine, points, k * (count / half));
            for (uint32_t i = k; i < count; i += 2 * half)
                butterfly(values + 2 * i, values + 2 * (i + half), w);
        }
        halvings++;
    }
    return halvings;
}

uint64_t drip_fft_power(const int32_t *values, uint32_t points, const int16_t *sine, uint32_t bin)
{
    const uint32_t count = points / 2;
    const int32_t *z = values + 2 * (bin == count ? 0 : bin);
    const int32_t *mirrored = values + 2 * (bin == 0 || bin == count ? 0 : count - bin);
    /* X = (Z + Z*) / 2 - i w (Z - Z*) / 2, with Z* the conjugate at the mirrored bin. */
    const int32_t sum_re = (int32_t)(((int64_t)z[0] + mirrored[0]) >> 1);
    const int32_t sum_im = (int32_t)(((int64_t)z[1] - mirrored[1]) >> 1);
    const int32_t difference_re = (int32_t)(((int64_t)z[0] - mirrored[0]) >> 1);
    const int32_t difference_im = (int32_t)(((int64_t)z[1] + mirrored[1]) >> 1);
    const twiddle_t w = twiddle(sine, points, bin);
    const int32_t turned_re = turn_re(difference_re, difference_im, w);
    const int32_t turned_im = turn_im(difference_re, difference_im, w);
    const int64_t re = (int64_t)sum_re + turned_im;
    const int64_t im = (int64_t)sum_im - turned_re;
    return (uint64_t)(re * re) + (uint64_t)(im * im);
}
