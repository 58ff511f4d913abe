/* AVERAGE_POOL_2D and MAX_POOL_2D on a Cortex-M with DSP instructions: four channels at a time. */
#include "dsp.h"

#ifdef DRIP_DSP

/* Sums of more bytes than this need more than 16 bits. */
enum { MOST_TAPS = 255 };

static void emit(const drip_kernel_t *k, int32_t value, int8_t *y)
{
    *y = drip_clamp(value, k->op->clamp_min, k->op->clamp_max);
}

/* Adds the even, then the odd bytes of a word to two pairs of 16-bit sums. */
static inline void add_bytes(uint32_t sums[2], uint32_t word)
{
    __asm("sxtab16 %0, %0, %1" : "+r"(sums[0]) : "r"(word));
    __asm("sxtab16 %0, %0, %1, ror #8" : "+r"(sums[1]) : "r"(word));
}

int32_t drip_average_dsp(const drip_patch_t *patch, const drip_kernel_t *k, int8_t *y)
{
    const int32_t taps = patch->rows * patch->columns;
    const int32_t channels = taps <= MOST_TAPS ? k->out->c & ~3 : 0;
    for (int32_t c = 0; c < channels; c += 4, y += 4) {
        uint32_t sums[2] = {0, 0};
        for (int32_t row = 0; row < patch->rows; row++) {
            const int8_t *x = patch->x + c + row * patch->pitch;
            for (int32_t n = patch->columns; n > 0; n--, x += patch->step)
                add_bytes(sums, drip_dsp_word(x));
        }
        for (uint32_t i = 0; i < 4; i++) {
            const int32_t sum = (int16_t)(sums[i & 1U] >> (i & 2U ? 16 : 0));
            emit(k, (sum > 0 ? sum + taps / 2 : sum - taps / 2) / taps, y + i);
        }
    }
    return channels;
}

/* The larger ones of four signed bytes each: SSUB8 notes which differences are not negative. */
static inline uint32_t max_bytes(uint32_t a, uint32_t b)
{
    uint32_t difference;
    __asm("ssub8 %0, %1, %2\n\t"
          "sel %1, %1, %2"
          : "=&r"(difference), "+r"(a)
          : "r"(b)
          : "cc");
    return a;
}

int32_t drip_max_dsp(const drip_patch_t *patch, const drip_kernel_t *k, int8_t *y)
{
    const int32_t channels = k->out->c & ~3;
    for (int32_t c = 0; c < channels; c += 4, y += 4) {
        uint32_t best = drip_dsp_word(patch->x + c);
        for (int32_t row = 0; row < patch->rows; row++) {
            const int8_t *x = patch->x + c + row * patch->pitch;
            for (int32_t n = patch->columns; n > 0; n--, x += patch->step)
                best = max_bytes(best, drip_dsp_word(x));
        }
        for (uint32_t i = 0; i < 4; i++)
            emit(k, (int8_t)(best >> (8 * i)), y + i);
    }
    return channels;
}

#else
typedef int drip_pool_dsp_unused_t;
#endif
