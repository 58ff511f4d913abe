/* DEPTHWISE_CONV_2D in layout PLANES, portable. A unit is an output position. */
#include "dsp.h"
#include "packed.h"

#ifndef DRIP_DSP

/* What one output position sees. A one-wide kernel over a one-wide tensor lies on its side. */
typedef struct {
    uint32_t corner; /* input element of the first tap inside the image, channel 0 */
    drip_span_t rows;
    drip_span_t columns;
    int32_t kernel_h;
    int32_t kernel_w;
    uint32_t step;  /* between taps of a row */
    uint32_t pitch; /* between rows */
    uint32_t row;   /* weights of a kernel row */
} view_t;

static view_t view_at(const drip_kernel_t *k, int32_t top, int32_t left)
{
    const drip_blob_op_t *op = k->op;
    view_t view = {0};
    view.rows = drip_clip(top, op->kernel_h, 1, k->in0->h);
    view.columns = drip_clip(left, op->kernel_w, 1, k->in0->w);
    view.corner = drip_tap_offset(k, top, left, view.rows, view.columns);
    view.kernel_h = op->kernel_h;
    view.kernel_w = op->kernel_w;
    view.step = k->in0->c;
    view.pitch = (uint32_t)k->in0->w * k->in0->c;
    if (op->kernel_w == 1 && k->in0->w == 1) {
        const drip_span_t columns = view.columns;
        view.columns = view.rows;
        view.rows = columns;
        view.kernel_h = 1;
        view.kernel_w = op->kernel_h;
    }
    view.row = drip_layout_row((uint32_t)view.kernel_w);
    return view;
}

/* Four neighbouring channels: weights of their next four taps and their sums. */
typedef struct {
    const int8_t *w0, *w1, *w2, *w3;
    uint32_t a0, a1, a2, a3;
} quad_t;

/* Adds the tap stored at `w` of the group of four. */
static inline void quad_tap(quad_t *q, const int8_t *x, int32_t w)
{
    q->a0 += (uint32_t)(x[0] * q->w0[w]);
    q->a1 += (uint32_t)(x[1] * q->w1[w]);
    q->a2 += (uint32_t)(x[2] * q->w2[w]);
    q->a3 += (uint32_t)(x[3] * q->w3[w]);
}

static inline void quad_advance(quad_t *q)
{
    q->w0 += 4;
    q->w1 += 4;
    q->w2 += 4;
    q->w3 += 4;
}

/* A kernel row that lies inside the image. */
static inline void quad_row(quad_t *quad, const int8_t *x, uint32_t step, int32_t taps)
{
    quad_t q = *quad;
    for (; taps >= 4; taps -= 4) {
        quad_tap(&q, x, 0);
        quad_tap(&q, x + step, 2);
        quad_tap(&q, x + 2 * step, 1);
        quad_tap(&q, x + 3 * step, 3);
        x += 4 * step;
        quad_advance(&q);
    }
    if (taps > 0) {
        quad_tap(&q, x, 0);
        if (taps > 1)
            quad_tap(&q, x + step, 2);
        if (taps > 2)
            quad_tap(&q, x + 2 * step, 1);
        quad_advance(&q);
    }
    *quad = q;
}

/* A kernel row that is partly or wholly outside: taps there see the zero point. */
static void quad_border(quad_t *quad, const view_t *view, const int8_t *x, drip_span_t inside,
                        const int8_t *outside)
{
    quad_t q = *quad;
    for (int32_t tap = 0; tap < view->kernel_w; tap++) {
        const int32_t w = 2 * (tap & 1) + (tap >> 1 & 1);
        if (tap >= inside.first && tap < inside.end) {
            quad_tap(&q, x, w);
            x += tap + 1 < inside.end ? view->step : 0;
        } else {
            quad_tap(&q, outside, w);
        }
        if ((tap & 3) == 3)
            quad_advance(&q);
    }
    if ((view->kernel_w & 3) != 0)
        quad_advance(&q);
    *quad = q;
}

static void quad(const drip_kernel_t *k, const view_t *view, uint32_t c, int8_t *y)
{
    const int8_t zero = (int8_t)k->op->in0_zero;
    const int8_t outside[4] = {zero, zero, zero, zero};
    const uint32_t bytes = (uint32_t)view->kernel_h * view->row;
    const int8_t *w = k->weights + c * bytes;
    const uint32_t *bias = (const uint32_t *)&k->bias[c];
    quad_t q = {w, w + bytes, w + 2 * bytes, w + 3 * bytes, bias[0], bias[1], bias[2], bias[3]};
    uint32_t at = view->corner + c;
    for (int32_t ky = 0; ky < view->kernel_h; ky++) {
        drip_span_t inside = view->columns;
        if (ky < view->rows.first || ky >= view->rows.end)
            inside.first = inside.end = view->kernel_w;
        const int8_t *x = inside.first != inside.end ? k->x0 + at : outside;
        if (inside.first == 0 && inside.end == view->kernel_w)
            quad_row(&q, x, view->step, view->kernel_w);
        else
            quad_border(&q, view, x, inside, outside);
        if (inside.first != inside.end)
            at += view->pitch;
    }
    drip_emit(k, c, q.a0, y + c);
    drip_emit(k, c + 1, q.a1, y + c + 1);
    drip_emit(k, c + 2, q.a2, y + c + 2);
    drip_emit(k, c + 3, q.a3, y + c + 3);
}

static void single(const drip_kernel_t *k, const view_t *view, uint32_t c, int8_t *y)
{
    uint32_t row = view->corner + c;
    uint32_t sum = (uint32_t)k->bias[c];
    for (int32_t ky = 0; ky < view->kernel_h; ky++) {
        const int inside = ky >= view->rows.first && ky < view->rows.end;
        uint32_t at = row;
        for (int32_t kx = 0; kx < view->kernel_w; kx++) {
            int32_t value = k->op->in0_zero;
            if (inside && kx >= view->columns.first && kx < view->columns.end) {
                value = k->x0[at];
                at += view->step;
            }
            const uint32_t w = drip_layout_planes(c, (uint32_t)view->kernel_h, view->row,
                                                  (uint32_t)ky, (uint32_t)kx);
            sum += (uint32_t)(value * k->weights[w]);
        }
        if (inside)
            row += view->pitch;
    }
    drip_emit(k, c, sum, y + c);
}

void drip_depthwise_packed_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    drip_cursor_t at = drip_cursor(k->out, first);
    int8_t *y = k->y + first * k->out->c;
    for (; count > 0; count--) {
        const view_t view =
            view_at(k, at.y * op->stride_h - op->pad_top, at.x * op->stride_w - op->pad_left);
        uint32_t c = 0;
        for (; c + 4 <= k->out->c; c += 4)
            quad(k, &view, c, y);
        for (; c < k->out->c; c++)
            single(k, &view, c, y);
        y += k->out->c;
        drip_cursor_next(&at);
    }
}

#else
typedef int drip_packed_planes_unused_t;
#endif
