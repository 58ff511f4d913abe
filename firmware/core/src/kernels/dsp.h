/* Kernels for a Cortex-M with DSP instructions, and the pieces that they share.
 *
 * They run operators in the packed layouts (layouts.h); all others go to the portable kernels. */
#ifndef DRIP_KERNELS_DSP_H
#define DRIP_KERNELS_DSP_H

#include "kernels.h"
#include "layouts.h"

#ifdef DRIP_DSP

/* CONV_2D in layout PAIRS. A unit is four output positions; two with little scratch. */
void drip_conv_dsp_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_conv_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

/* DEPTHWISE_CONV_2D in layout PLANES. A unit is a channel. */
void drip_depthwise_dsp_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_depthwise_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

/* FULLY_CONNECTED in layout PAIRS. A unit is four output channels. */
void drip_dense_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

/* ADD of two tensors, when drip_add_dsp_can. A unit is an element. */
int drip_add_dsp_can(const drip_kernel_t *k);
void drip_add_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

#endif

/* The elements of one channel that a window of a pool sees. */
typedef struct {
    const int8_t *x;
    int32_t rows;
    int32_t columns;
    int32_t step;  /* between columns */
    int32_t pitch; /* between rows */
} drip_patch_t;

#ifdef DRIP_DSP

/* Pools channels in fours, as many as there are. Returns the number of channels done. */
int32_t drip_average_dsp(const drip_patch_t *patch, const drip_kernel_t *k, int8_t *y);
int32_t drip_max_dsp(const drip_patch_t *patch, const drip_kernel_t *k, int8_t *y);

/* A block of a convolution: four or two output positions ("columns"), all output channels.
 *
 * The kernels read it at fixed offsets. */
typedef struct {
    const int8_t *weights; /* layout PAIRS, of the next channel pair */
    const int32_t *bias;   /* of the next channel pair */
    uint32_t pair_bytes;   /* weights of one pair */
    union {
        uint32_t entry;       /* four columns: where the unrolled loop is entered, set inside */
        const int8_t *second; /* two columns: taps of the second one */
    } u;
    const void *columns;            /* four: see drip_dsp_widen; two: int8 taps of the first */
    const drip_blob_quant_t *quant; /* of the next channel pair */
    int8_t *out;                    /* next channel of column 0 */
    uint32_t step[3];               /* bytes from a column's output to the next one's; 0 repeats */
    uint32_t pairs;                 /* still to do */
    int32_t out_zero;
    uint32_t fast;  /* DRIP_OP_FLAG_FAST_REQUANT */
    int32_t acc[8]; /* slow path: column by column, two channels each */
    const drip_kernel_t *k;
    uint32_t count;  /* columns: 4 or 2 */
    uint32_t single; /* the last pair has one channel only */
} drip_dsp_block_t;

/* Multiplies, requantises and stores a block of four columns. */
void drip_dsp_block4(drip_dsp_block_t *block);

/* The same for two columns that are not widened: half the speed, an eighth of the memory. Reads
 * pair_bytes / 2 bytes of each. */
void drip_dsp_block2(drip_dsp_block_t *block);

/* Widens 4 * words taps of four columns to 16 bits, interleaved the way drip_dsp_block4 reads them.
 *
 * Returns the end of what was written. */
int16_t *drip_dsp_widen(const int8_t *const source[4], int16_t *out, uint32_t words);

/* drip_scale and drip_add32 of the output's zero point where `right` is 1..31, saturated to int8.
 *
 * The carry flag holds first bit 30 of the product, which rounds it to 31 bits, then the last bit
 * that is shifted out, which rounds to the nearest; subtracting 1 from a negative value before makes
 * that half away from zero. */
static inline int32_t drip_dsp_requant(int32_t value, int32_t mult, int32_t right, int32_t zero)
{
    int32_t low, high;
    __asm("smull %0, %1, %2, %3\n\t"
          "lsrs %0, %0, #31\n\t"
          "adc %1, %0, %1, lsl #1\n\t"
          "add %1, %1, %1, asr #31\n\t"
          "asrs %1, %1, %4\n\t"
          "adc %2, %1, %5\n\t"
          "ssat %2, #8, %2"
          : "=&r"(low), "=&r"(high), "+r"(value)
          : "r"(mult), "r"(right), "r"(zero)
          : "cc");
    return value;
}

/* Even bytes of a word as two signed halfwords, and the odd ones. */
static inline uint32_t drip_dsp_even(uint32_t word)
{
    uint32_t pair;
    __asm("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
}

static inline uint32_t drip_dsp_odd(uint32_t word)
{
    uint32_t pair;
    __asm("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
}

/* sum + a.low * b.low + a.high * b.high */
static inline int32_t drip_dsp_smlad(uint32_t a, uint32_t b, int32_t sum)
{
    __asm("smlad %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

/* sum + |a - b| of four unsigned bytes */
static inline int32_t drip_dsp_sad(uint32_t a, uint32_t b, int32_t sum)
{
    __asm("usada8 %0, %1, %2, %0" : "+r"(sum) : "r"(a), "r"(b));
    return sum;
}

static inline uint32_t drip_dsp_word(const void *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

#endif /* DRIP_DSP */

#endif
