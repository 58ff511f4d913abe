/* FULLY_CONNECTED in layout PAIRS on a Cortex-M with DSP instructions. */
#include "dsp.h"

#ifdef DRIP_DSP

/* Four taps of a channel pair at `w`, sums `a` and `b`; the input's pairs are in r8 and r9. */
#define PAIR(w, a, b)                                                                              \
    "ldrd r10, r11, [" w "], #8\n\t"                                                               \
    "sxtb16 r12, r10\n\t"                                                                          \
    "sxtb16 lr, r10, ror #8\n\t"                                                                   \
    "smlad " a ", r8, r12, " a "\n\t"                                                              \
    "smlad " b ", r8, lr, " b "\n\t"                                                               \
    "sxtb16 r12, r11\n\t"                                                                          \
    "sxtb16 lr, r11, ror #8\n\t"                                                                   \
    "smlad " a ", r9, r12, " a "\n\t"                                                              \
    "smlad " b ", r9, lr, " b "\n\t"

/* 21 instructions for 16 multiply-accumulates. */
#define FOUR_TAPS                                                                                  \
    "ldr r9, [r0], #4\n\t"                                                                         \
    "sxtb16 r8, r9\n\t"                                                                            \
    "sxtb16 r9, r9, ror #8\n\t" PAIR("r1", "r4", "r5") PAIR("r2", "r6", "r7")

/* Adds `words` times four taps of x to the sums of two channel pairs. */
__attribute__((naked, noinline)) static void
dot(const int8_t *x, const int8_t *weights, uint32_t pair_bytes, uint32_t words, int32_t sums[4])
{
    (void)x;
    (void)weights;
    (void)pair_bytes;
    (void)words;
    (void)sums;
    /* clang-format off */
    __asm volatile("push {r4-r11, lr}\n\t"
                   "ldr r8, [sp, #36]\n\t"
                   "ldm r8, {r4-r7}\n\t"
                   "add r2, r2, r1\n\t"
                   "lsrs r3, r3, #1\n\t"
                   "bcc 1f\n\t" FOUR_TAPS
                   "cmp r3, #0\n\t"
                   "beq 2f\n\t"
                   "1:\n\t" FOUR_TAPS FOUR_TAPS
                   "subs r3, r3, #1\n\t"
                   "bne 1b\n\t"
                   "2:\n\t"
                   "ldr r8, [sp, #36]\n\t"
                   "stm r8, {r4-r7}\n\t"
                   "pop {r4-r11, pc}\n\t");
    /* clang-format on */
}

static inline void emit(const drip_kernel_t *k, uint32_t channel, int32_t sum)
{
    const drip_blob_quant_t *quant = &k->quant[channel];
    const drip_blob_op_t *op = k->op;
    if ((op->flags & DRIP_OP_FLAG_FAST_REQUANT) != 0)
        k->y[channel] = (int8_t)drip_dsp_requant(sum, quant->mult, -quant->shift, op->out_zero);
    else
        drip_emit(k, channel, (uint32_t)sum, &k->y[channel]);
}

void drip_dense_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const uint32_t size = k->in0->size, words = size / 4, channels = k->out->c;
    const uint32_t pair_bytes = 2 * drip_layout_row(size);
    const uint32_t end = 4 * (first + count) < channels ? 4 * (first + count) : channels;
    uint32_t rest = 0;
    memcpy(&rest, k->x0 + 4 * words, size & 3U);
    for (uint32_t c = 4 * first; c < end; c += 4) {
        const int8_t *weights = k->weights + (c / 2) * pair_bytes;
        const uint32_t other = c + 2 < channels ? pair_bytes : 0; /* else there is no such pair */
        int32_t sums[4] = {0, 0, 0, 0};
        for (uint32_t i = 0; i < 4 && c + i < channels; i++)
            sums[i] = k->bias[c + i];
        if (words != 0)
            dot(k->x0, weights, other, words, sums);
        if ((size & 3U) != 0)
            dot((const int8_t *)&rest, weights + 8 * words, other, 1, sums);
        for (uint32_t i = 0; i < 4 && c + i < channels; i++)
            emit(k, c + i, sums[i]);
        for (uint32_t i = 0; k->signs != NULL && i < 4 && c + i < channels; i++)
            k->signs[c + i] = sums[i] > 0;
    }
}

#else
typedef int drip_dense_dsp_unused_t;
#endif
