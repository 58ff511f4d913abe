/* DEPTHWISE_CONV_2D: what it needs, and the way to its kernels. */
#include "dsp.h"
#include "packed.h"

/* Bytes of the weights. Returns 0 when that does not fit 31 bits. */
static uint32_t weights_bytes(const drip_kernel_t *k)
{
    const drip_blob_op_t *op = k->op;
    uint32_t rows = op->kernel_h;
    uint32_t row = op->kernel_w;
    if (op->layout_id == DRIP_LAYOUT_PLANES) {
        if (op->kernel_w == 1 && k->in0->w == 1) {
            row = rows;
            rows = 1;
        }
        row = drip_layout_row(row);
    }
    uint32_t kernel = 0;
    uint32_t bytes = 0;
    return drip_mul_overflows(rows, row, &kernel) || drip_mul_overflows(kernel, k->out->c, &bytes)
               ? 0
               : bytes;
}

int drip_depthwise_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    const int packed = op->layout_id == DRIP_LAYOUT_PLANES;
    if (!packed && (op->layout_id != DRIP_LAYOUT_PLAIN || !DRIP_PLAIN_WEIGHTS))
        return DRIP_ERR_UNSUPPORTED;
    if (drip_window_check(k) != DRIP_ERR_OK || op->depth_multiplier == 0 ||
        (uint32_t)k->in0->c * op->depth_multiplier != k->out->c ||
        (packed && (op->dilation_h != 1 || op->dilation_w != 1 || op->depth_multiplier != 1)))
        return DRIP_ERR_CORRUPT;
    plan->weights_bytes = weights_bytes(k);
    if (plan->weights_bytes == 0)
        return DRIP_ERR_CORRUPT;
    plan->channels = k->out->c;
    plan->units = (uint32_t)k->out->h * k->out->w;
    plan->cost = plan->weights_bytes;
#ifdef DRIP_DSP
    if (packed)
        drip_depthwise_dsp_plan(k, plan);
#endif
    return DRIP_ERR_OK;
}

void drip_depthwise_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    if (DRIP_PLAIN_WEIGHTS && k->op->layout_id == DRIP_LAYOUT_PLAIN) {
        drip_plain_run(k, first, count);
        return;
    }
#ifdef DRIP_DSP
    drip_depthwise_dsp_run(k, first, count);
#else
    drip_depthwise_packed_run(k, first, count);
#endif
}
