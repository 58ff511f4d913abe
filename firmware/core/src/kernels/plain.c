/* CONV_2D and DEPTHWISE_CONV_2D in the plain layout, which serves what the packed ones cannot:
 * dilation and depth multipliers. Rare, so small code comes before fast code. Plain weights are
 * [out_c][kh][kw][in_c] or, depthwise, [kh][kw][out_c] with output channel = input channel *
 * multiplier + m. A unit is an output position. */
#include "kernels.h"

/* How the weights of one output channel lie and which input channels it sees. */
typedef struct {
    uint32_t next_channel;
    uint32_t next_tap;
    uint32_t depth;
    uint32_t multiplier; /* 0 = all input channels */
} order_t;

static uint32_t window_sum(const drip_kernel_t *k, const order_t *order, uint32_t c, int32_t top,
                           int32_t left)
{
    const drip_blob_op_t *op = k->op;
    const drip_blob_tensor_t *in = k->in0;
    const int8_t *x0 = k->x0 + (order->multiplier != 0 ? c / order->multiplier : 0);
    const int8_t *w = k->weights + c * order->next_channel;
    uint32_t sum = (uint32_t)k->bias[c];
    for (int32_t ky = 0; ky < op->kernel_h; ky++) {
        const int32_t y = top + ky * op->dilation_h;
        int32_t x = left;
        for (int32_t kx = 0; kx < op->kernel_w; kx++, x += op->dilation_w, w += order->next_tap) {
            const int inside = y >= 0 && y < in->h && x >= 0 && x < in->w;
            const int8_t *from = inside ? x0 + (y * in->w + x) * in->c : NULL;
            for (uint32_t i = 0; i < order->depth; i++)
                sum += (uint32_t)((from != NULL ? from[i] : op->in0_zero) * w[i]);
        }
    }
    return sum;
}

void drip_plain_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    order_t order = {(uint32_t)op->kernel_h * op->kernel_w * k->in0->c, k->in0->c, k->in0->c, 0};
    if (op->kind == DRIP_OP_DEPTHWISE_CONV_2D) {
        order.next_channel = order.depth = 1;
        order.next_tap = k->out->c;
        order.multiplier = op->depth_multiplier;
    }
    drip_cursor_t at = drip_cursor(k->out, first);
    int8_t *y = k->y + first * k->out->c;
    for (; count > 0; count--, drip_cursor_next(&at)) {
        const int32_t top = at.y * op->stride_h - op->pad_top;
        const int32_t left = at.x * op->stride_w - op->pad_left;
        for (uint32_t c = 0; c < k->out->c; c++)
            drip_emit(k, c, window_sum(k, &order, c, top, left), y++);
    }
}
