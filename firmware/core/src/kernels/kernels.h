/* Operators of the engine. Internal to the core.
 *
 * Every operator has two functions. `plan` judges the geometry and says what the operator needs and
 * how its work divides into units; `run` does some units. A variant for a processor defines the same
 * two functions and chooses its own unit, weight layout and scratch: nothing outside relies on them.
 * Kernels read and write only inside the ranges that `plan` reported and opening has checked. Input
 * and output may overlap in a hostile blob: that may spoil numbers, not memory. */
#ifndef DRIP_KERNELS_KERNELS_H
#define DRIP_KERNELS_KERNELS_H

#include "requant.h"

#include <stddef.h>
#include <string.h>

/* Operators in this image, bit n = enum DRIP_OP_* n. A build for one fixed model sets its
 * header.op_bitmap here, and the linker leaves out the rest. */
#ifndef DRIP_OPS
#define DRIP_OPS 0x3FFEu
#endif
/* 0 leaves plain weights out of an image whose model has packed ones only: half a KiB. */
#ifndef DRIP_PLAIN_WEIGHTS
#define DRIP_PLAIN_WEIGHTS 1
#endif

enum {
    DRIP_NO_TENSOR = 65535,
    DRIP_ARENA_MAX = 1 << 23, /* 255 * elements of any tensor fits 32 bits */
    DRIP_WINDOW_MAX = 65535   /* extent of a dilated kernel */
};

/* One operator of a network, resolved. The pointers to memory are NULL while planning. */
typedef struct {
    const drip_blob_op_t *op;
    const drip_blob_tensor_t *in0;
    const drip_blob_tensor_t *in1; /* NULL = none */
    const drip_blob_tensor_t *out;
    const int8_t *x0;
    const int8_t *x1; /* second operand: tensor or constant */
    int8_t *y;
    int8_t *signs; /* FULLY_CONNECTED: second result, NULL = none */
    const int8_t *weights;
    const int32_t *bias;
    const drip_blob_quant_t *quant;
    void *scratch; /* aligned to 16 */
} drip_kernel_t;

/* What an operator needs. All zero before `plan`. */
typedef struct {
    uint32_t units;         /* pieces of work, >= 1 */
    uint32_t cost;          /* of one unit, in multiply-accumulates */
    uint32_t weights_bytes; /* exact, at weights_offset */
    uint32_t channels;      /* entries of bias and quant */
    uint32_t scratch_bytes; /* at least, at scratch_offset */
} drip_plan_t;

/* Judges any operator.
 * Returns DRIP_ERR_OK, _UNSUPPORTED (operator or weight layout not in this image) or _CORRUPT. */
int drip_kernel_plan(const drip_kernel_t *k, drip_plan_t *plan);

/* Does units first .. first + count - 1. */
void drip_kernel_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

int drip_conv_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_conv_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
/* Both in the plain layout. */
void drip_plain_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_depthwise_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_depthwise_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_dense_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_dense_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_pool_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_average_pool_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
void drip_max_pool_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_mean_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_mean_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_add_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_add_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_mul_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_mul_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_requantize_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_requantize_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_pad_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_pad_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_copy_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_copy_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_softmax_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_softmax_run(const drip_kernel_t *k, uint32_t first, uint32_t count);
int drip_logistic_plan(const drip_kernel_t *k, drip_plan_t *plan);
void drip_logistic_run(const drip_kernel_t *k, uint32_t first, uint32_t count);

/* Checks the sliding window of an operator in both directions.
 * After it, no coordinate of a tap overflows 32 bits. Returns DRIP_ERR_OK or _CORRUPT. */
int drip_window_check(const drip_kernel_t *k);

/* a * b in `*product`. Returns 0, or 1 when it does not fit 31 bits. */
static inline int drip_mul_overflows(uint32_t a, uint32_t b, uint32_t *product)
{
    const uint64_t wide = (uint64_t)a * b;
    *product = (uint32_t)wide;
    return wide > INT32_MAX;
}

/* Taps of one direction that lie inside the image: first and one past the last. */
typedef struct {
    int32_t first;
    int32_t end;
} drip_span_t;

/* Clips `taps` taps that start at `start` and are `dilation` apart to 0..size-1. */
static inline drip_span_t drip_clip(int32_t start, int32_t taps, int32_t dilation, int32_t size)
{
    drip_span_t span = {0, taps};
    if (start < 0)
        span.first = dilation == 1 ? -start : (dilation - 1 - start) / dilation;
    int32_t fit = size - start;
    if (dilation != 1 && fit > 0)
        fit = (fit + dilation - 1) / dilation;
    if (fit < span.end)
        span.end = fit;
    if (span.end <= span.first)
        span.first = span.end = taps;
    return span;
}

/* Element of the input, channel 0, that the first tap inside the image sees. Offsets wrap where no
 * tap is inside; they are not used then. */
static inline uint32_t drip_tap_offset(const drip_kernel_t *k, int32_t top, int32_t left,
                                       drip_span_t rows, drip_span_t columns)
{
    const uint32_t y = (uint32_t)(top + rows.first * k->op->dilation_h);
    const uint32_t x = (uint32_t)(left + columns.first * k->op->dilation_w);
    return (y * k->in0->w + x) * k->in0->c;
}

/* Requantises the sum of an output channel and writes it. */
static inline void drip_emit_inline(const drip_kernel_t *k, uint32_t channel, uint32_t sum,
                                    int8_t *y)
{
    const drip_blob_op_t *op = k->op;
    const drip_blob_quant_t *quant = &k->quant[channel];
    const int32_t scaled = drip_scale((int32_t)sum, quant->mult, quant->shift);
    *y = drip_clamp(drip_add32(scaled, op->out_zero), op->clamp_min, op->clamp_max);
}

#ifdef DRIP_DSP
void drip_emit(const drip_kernel_t *k, uint32_t channel, uint32_t sum, int8_t *y);
#else
static inline void drip_emit(const drip_kernel_t *k, uint32_t channel, uint32_t sum, int8_t *y)
{
    drip_emit_inline(k, channel, sum, y);
}
#endif

/* Notes whether the sum of an output channel is above zero, where that is wanted. */
static inline void drip_sign(const drip_kernel_t *k, uint32_t channel, uint32_t sum)
{
    if (k->signs != NULL)
        k->signs[channel] = (int32_t)sum > 0;
}

/* Walks over output positions, row by row. */
typedef struct {
    int32_t x;
    int32_t y;
    int32_t width;
} drip_cursor_t;

static inline drip_cursor_t drip_cursor(const drip_blob_tensor_t *out, uint32_t position)
{
    const drip_cursor_t cursor = {(int32_t)(position % out->w), (int32_t)(position / out->w),
                                  out->w};
    return cursor;
}

static inline void drip_cursor_next(drip_cursor_t *cursor)
{
    if (++cursor->x == cursor->width) {
        cursor->x = 0;
        cursor->y++;
    }
}

#endif
