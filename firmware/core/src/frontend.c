#include "drip/frontend.h"

#include <string.h>

#include "frontend_fft.h"

enum {
    Q15 = 15,
    ONE = 1 << Q15,
    HEADROOM_BITS = 29, /* of samples before the FFT: a complex value stays below 2^30 */
    POWER_SHIFT = 12,   /* all bins together stay below 2^61 (Parseval), weighted below 2^64 */
    LONGEST = (1 << 30) + (1 << 16), /* sin^2 + cos^2 with what rounding adds */
};

/* Coefficients of log2(1 + x) for x in 0..1 with 30 fraction bits; off by 0.00002 at most. */
enum { LOG_0 = 17732, LOG_1 = 1547790691, LOG_2 = -758584049 };
enum { LOG_3 = 439665385, LOG_4 = -201314356, LOG_5 = 46176222 };

static int check_tables(const drip_frontend_t *f, uint32_t halves)
{
    const uint32_t bins = f->desc.fft / 2u + 1;
    for (uint32_t i = 0; i <= f->desc.mels; i++)
        if (f->edges[i] > f->edges[i + 1])
            return DRIP_ERR_CORRUPT;
    if (f->edges[f->desc.mels + 1u] > bins)
        return DRIP_ERR_CORRUPT;
    for (uint32_t i = 0; i < halves; i++)
        if (f->window[i] < 0)
            return DRIP_ERR_CORRUPT;
    const uint32_t quarter = f->desc.fft / 4u;
    for (uint32_t i = 0; i <= quarter; i++) {
        /* A turn that made values longer could overflow. */
        const int32_t sine = f->sine[i], cosine = f->sine[quarter - i];
        if (sine < 0 || sine * sine > LONGEST - cosine * cosine)
            return DRIP_ERR_CORRUPT;
    }
    const uint32_t rises = (uint32_t)f->edges[f->desc.mels + 1u] - f->edges[0];
    for (uint32_t i = 0; i < rises; i++)
        if (f->rise[i] > ONE)
            return DRIP_ERR_CORRUPT;
    return DRIP_ERR_OK;
}

int drip_frontend_open(drip_frontend_t *frontend, const void *section, uint32_t size)
{
    const uint8_t *at = section;
    drip_blob_frontend_t *desc = &frontend->desc;
    if (size < sizeof *desc)
        return DRIP_ERR_SHORT;
    memcpy(desc, at, sizeof *desc);
    if (desc->fft < DRIP_FRONTEND_FFT_MIN || desc->fft > DRIP_FRONTEND_FFT_MAX ||
        (desc->fft & (desc->fft - 1u)) != 0 || desc->window < 2 || desc->window > desc->fft ||
        desc->hop == 0 || desc->mels == 0 || desc->mels > DRIP_FRONTEND_MELS_MAX)
        return DRIP_ERR_CORRUPT;
    const uint32_t halves = (desc->window + 1u) / 2;
    const uint32_t fixed = sizeof *desc + 2 * (halves + desc->fft / 4u + 1 + desc->mels + 2u);
    if (size < fixed)
        return DRIP_ERR_SHORT;
    frontend->window = (const int16_t *)(const void *)(at + sizeof *desc);
    frontend->sine = frontend->window + halves;
    frontend->edges = (const uint16_t *)(const void *)(frontend->sine + desc->fft / 4u + 1);
    frontend->rise = frontend->edges + desc->mels + 2;
    const uint32_t first = frontend->edges[0];
    const uint32_t last = frontend->edges[desc->mels + 1u];
    if (last < first || size - fixed < 2 * (last - first))
        return DRIP_ERR_CORRUPT;
    return check_tables(frontend, halves);
}

uint32_t drip_frontend_work_bytes(const drip_frontend_t *frontend)
{
    return 4u * frontend->desc.fft;
}

/* Weights the samples and scales them up to the headroom. Returns the shift, or -1 for silence. */
static int load(const drip_frontend_t *f, const uint8_t *samples, int32_t *work, int *right)
{
    const uint32_t count = f->desc.window;
    uint32_t all = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t mirrored = i < count - 1 - i ? i : count - 1 - i;
        const int16_t raw = (int16_t)(uint16_t)(samples[2 * i] | (uint32_t)samples[2 * i + 1] << 8);
        const int32_t value = raw * f->window[mirrored];
        work[i] = value;
        all |= (uint32_t)(value < 0 ? -value : value);
    }
    for (uint32_t i = count; i < f->desc.fft; i++)
        work[i] = 0;
    if (all == 0)
        return -1;
    const int bits = 32 - __builtin_clz(all);
    *right = bits > HEADROOM_BITS;
    const int shift = *right ? bits - HEADROOM_BITS : HEADROOM_BITS - bits;
    for (uint32_t i = 0; i < count; i++)
        work[i] = *right ? work[i] >> shift : (int32_t)((uint32_t)work[i] << shift);
    return shift;
}

/* log2 of a power with 16 fraction bits. */
static int32_t log2_q16(uint64_t power)
{
    uint32_t high = (uint32_t)(power >> 32);
    const uint32_t low = (uint32_t)power;
    int32_t exponent;
    if (high != 0) {
        const uint32_t zeros = (uint32_t)__builtin_clz(high);
        exponent = 63 - (int32_t)zeros;
        if (zeros != 0)
            high = high << zeros | low >> (32 - zeros);
    } else {
        const uint32_t zeros = (uint32_t)__builtin_clz(low);
        exponent = 31 - (int32_t)zeros;
        high = low << zeros;
    }
    const int64_t x = (high & 0x7FFFFFFFu) >> 1; /* the fraction, 30 bits */
    int64_t y = LOG_5;
    y = LOG_4 + (y * x >> 30);
    y = LOG_3 + (y * x >> 30);
    y = LOG_2 + (y * x >> 30);
    y = LOG_1 + (y * x >> 30);
    y = LOG_0 + (y * x >> 30);
    return exponent * 65536 + (int32_t)((y + (1 << 13)) >> 14);
}

static uint8_t feature(const drip_frontend_t *f, uint64_t band, int32_t exponent)
{
    if (band == 0)
        return 0;
    const int64_t doublings = log2_q16(band) + exponent * 65536;
    const int64_t step = (doublings * f->desc.scale >> 16) + f->desc.offset;
    const int32_t rounded = (int32_t)((step + 32768) >> 16);
    return (uint8_t)(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
}

void drip_frontend_window(const drip_frontend_t *frontend, const uint8_t *samples, int32_t *work,
                          uint8_t *out)
{
    const uint32_t mels = frontend->desc.mels;
    int right = 0;
    const int shift = load(frontend, samples, work, &right);
    if (shift < 0) {
        memset(out, 0, mels);
        return;
    }
    const int32_t halvings = drip_fft_real(work, frontend->desc.fft, frontend->sine);
    /* Power 1 is that of full scale: samples have 15 fraction bits, and so has the window. */
    const int32_t exponent =
        2 * (halvings + (right ? shift : -shift) - 2 * Q15) + POWER_SHIFT - Q15;
    uint64_t below = 0;
    for (uint32_t m = 0; m <= mels; m++) {
        uint64_t above = 0;
        for (uint32_t bin = frontend->edges[m]; bin < frontend->edges[m + 1]; bin++) {
            const uint64_t power =
                drip_fft_power(work, frontend->desc.fft, frontend->sine, bin) >> POWER_SHIFT;
            const uint32_t rise = frontend->rise[bin - frontend->edges[0]];
            above += power * rise;
            below += power * (ONE - rise);
        }
        if (m != 0)
            out[m - 1] = feature(frontend, below, exponent);
        below = above;
    }
}
