/* CONV_2D: what it needs, and the way to its kernels. */
#include "dsp.h"
#include "packed.h"

int drip_window_check(const drip_kernel_t *k)
{
    const drip_blob_op_t *op = k->op;
    if (op->kernel_h == 0 || op->kernel_w == 0 || op->stride_h == 0 || op->stride_w == 0 ||
        op->dilation_h == 0 || op->dilation_w == 0 || op->pad_top < 0 || op->pad_left < 0)
        return DRIP_ERR_CORRUPT;
    const uint32_t extent_h = (op->kernel_h - 1u) * op->dilation_h;
    const uint32_t extent_w = (op->kernel_w - 1u) * op->dilation_w;
    if (extent_h >= DRIP_WINDOW_MAX || extent_w >= DRIP_WINDOW_MAX)
        return DRIP_ERR_CORRUPT;
    /* The last window begins inside the padded image, the first one does not end before it. */
    if ((k->out->h - 1u) * op->stride_h >= k->in0->h + (uint32_t)op->pad_top ||
        (k->out->w - 1u) * op->stride_w >= k->in0->w + (uint32_t)op->pad_left)
        return DRIP_ERR_CORRUPT;
    return (uint32_t)op->pad_top <= extent_h && (uint32_t)op->pad_left <= extent_w
               ? DRIP_ERR_OK
               : DRIP_ERR_CORRUPT;
}

int drip_conv_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    const int packed = op->layout_id == DRIP_LAYOUT_PAIRS;
    if (!packed && (op->layout_id != DRIP_LAYOUT_PLAIN || !DRIP_PLAIN_WEIGHTS))
        return DRIP_ERR_UNSUPPORTED;
    uint32_t row = 0;
    if (drip_window_check(k) != DRIP_ERR_OK || drip_mul_overflows(op->kernel_w, k->in0->c, &row) ||
        (packed && (op->dilation_h != 1 || op->dilation_w != 1)))
        return DRIP_ERR_CORRUPT;
    uint32_t channels = k->out->c;
    if (packed) {
        row = drip_layout_row(row);
        channels = (channels + 1) & ~1u;
    }
    uint32_t kernel = 0;
    if (drip_mul_overflows(op->kernel_h, row, &kernel) ||
        drip_mul_overflows(kernel, channels, &plan->weights_bytes))
        return DRIP_ERR_CORRUPT;
    plan->channels = k->out->c;
    plan->units = (uint32_t)k->out->h * k->out->w;
    plan->cost = plan->weights_bytes;
    if (packed)
#ifdef DRIP_DSP
        drip_conv_dsp_plan(k, plan);
#else
        drip_conv_packed_plan(k, plan);
#endif
    return DRIP_ERR_OK;
}

void drip_conv_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    if (DRIP_PLAIN_WEIGHTS && k->op->layout_id == DRIP_LAYOUT_PLAIN) {
        drip_plain_run(k, first, count);
        return;
    }
#ifdef DRIP_DSP
    drip_conv_dsp_run(k, first, count);
#else
    drip_conv_packed_run(k, first, count);
#endif
}
