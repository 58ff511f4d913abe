/* CONV_2D (unit: an output position) and FULLY_CONNECTED (unit: four channels) in layout PAIRS,
 * portable: two output channels at a time. A convolution first gathers the taps of a position, so
 * that its borders cost nothing per channel. */
#include "dsp.h"
#include "packed.h"

#ifndef DRIP_DSP

/* Two output channels: their next weights and their sums. */
typedef struct {
    const int8_t *w;
    uint32_t a, b;
} pair_t;

static inline pair_t pair_open(const drip_kernel_t *k, uint32_t c, uint32_t pair_bytes)
{
    const pair_t pair = {k->weights + (c >> 1) * pair_bytes, (uint32_t)k->bias[c],
                         c + 1 < k->out->c ? (uint32_t)k->bias[c + 1] : 0};
    return pair;
}

/* Adds `count` groups of four taps. */
static inline void pair_dot(pair_t *pair, const int8_t *x, uint32_t count)
{
    pair_t p = *pair;
    for (const int8_t *end = x + 4 * count; x != end; x += 4, p.w += 8) {
        const int32_t x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        p.a += (uint32_t)(x0 * p.w[0]);
        p.b += (uint32_t)(x0 * p.w[1]);
        p.a += (uint32_t)(x2 * p.w[2]);
        p.b += (uint32_t)(x2 * p.w[3]);
        p.a += (uint32_t)(x1 * p.w[4]);
        p.b += (uint32_t)(x1 * p.w[5]);
        p.a += (uint32_t)(x3 * p.w[6]);
        p.b += (uint32_t)(x3 * p.w[7]);
    }
    *pair = p;
}

static inline void pair_emit(const pair_t *pair, const drip_kernel_t *k, uint32_t c, int8_t *y)
{
    drip_emit(k, c, pair->a, y);
    if (c + 1 < k->out->c)
        drip_emit(k, c + 1, pair->b, y + 1);
}

/* 1 when the taps of a position lie in the input as the weights want them. */
static int is_direct(const drip_kernel_t *k)
{
    const drip_blob_op_t *op = k->op;
    return op->kernel_h == 1 && op->kernel_w == 1 && (k->in0->c & 3) == 0;
}

void drip_conv_packed_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    if (!is_direct(k))
        plan->scratch_bytes =
            k->op->kernel_h * drip_layout_row((uint32_t)k->op->kernel_w * k->in0->c);
}

/* Copies the taps of a position to the scratch; those outside the image see the zero point. */
static void gather(const drip_kernel_t *k, int32_t top, int32_t left, uint32_t row)
{
    const drip_blob_op_t *op = k->op;
    const drip_blob_tensor_t *in = k->in0;
    const drip_span_t columns = drip_clip(left, op->kernel_w, 1, in->w);
    const uint32_t bytes = (uint32_t)(columns.end - columns.first) * in->c;
    const int whole = columns.end - columns.first == op->kernel_w;
    int8_t *to = k->scratch;
    for (int32_t y = top; y < top + op->kernel_h; y++, to += row) {
        const int inside = y >= 0 && y < in->h && bytes != 0;
        if (!inside || !whole)
            memset(to, op->in0_zero, row);
        if (inside) /* a hostile blob may have laid the scratch over the input */
            memmove(to + columns.first * in->c, k->x0 + (y * in->w + left + columns.first) * in->c,
                    bytes);
    }
}

void drip_conv_packed_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    const uint32_t row = drip_layout_row((uint32_t)op->kernel_w * k->in0->c);
    const uint32_t taps = op->kernel_h * row;
    const int direct = is_direct(k);
    drip_cursor_t at = drip_cursor(k->out, first);
    int8_t *y = k->y + first * k->out->c;
    for (; count > 0; count--, drip_cursor_next(&at)) {
        const int32_t top = at.y * op->stride_h - op->pad_top;
        const int32_t left = at.x * op->stride_w - op->pad_left;
        const int8_t *x = k->scratch;
        if (direct)
            x = k->x0 + (top * k->in0->w + left) * k->in0->c;
        else
            gather(k, top, left, row);
        for (uint32_t c = 0; c < k->out->c; c += 2) {
            pair_t pair = pair_open(k, c, 2 * taps);
            pair_dot(&pair, x, taps / 4);
            pair_emit(&pair, k, c, y + c);
        }
        y += k->out->c;
    }
}

void drip_dense_packed_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const uint32_t size = k->in0->size;
    const uint32_t end = 4 * (first + count) < k->out->c ? 4 * (first + count) : k->out->c;
    for (uint32_t c = 4 * first; c < end; c += 2) {
        pair_t pair = pair_open(k, c, 2 * drip_layout_row(size));
        pair_dot(&pair, k->x0, size / 4);
        if ((size & 3) != 0) {
            int8_t rest[4] = {0, 0, 0, 0};
            memcpy(rest, k->x0 + (size & ~3u), size & 3);
            pair_dot(&pair, rest, 1);
        }
        pair_emit(&pair, k, c, k->y + c);
        drip_sign(k, c, pair.a);
        if (c + 1 < k->out->c)
            drip_sign(k, c + 1, pair.b);
    }
}

#else
typedef int drip_packed_pairs_unused_t;
#endif
