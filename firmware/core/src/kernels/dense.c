/* FULLY_CONNECTED: the plain layout, and the way to the kernels of the packed one. Plain weights
 * [out_c][inputs], input offset folded into the bias. A unit is four output channels. Tensor in1, if
 * there is one, gets a 1 for every sum above zero, else a 0: where it tells what a ReLU lets pass, the
 * output may have rounded to zero. */
#include "dsp.h"
#include "packed.h"

int drip_dense_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const int packed = k->op->layout_id == DRIP_LAYOUT_PAIRS;
    if (!packed && k->op->layout_id != DRIP_LAYOUT_PLAIN)
        return DRIP_ERR_UNSUPPORTED;
    const uint32_t inputs = packed ? drip_layout_row(k->in0->size) : k->in0->size;
    const uint32_t channels = packed ? (k->out->c + 1u) & ~1u : k->out->c;
    if (k->in1 != NULL && k->in1->size != k->out->c)
        return DRIP_ERR_CORRUPT;
    if (k->out->size != k->out->c || drip_mul_overflows(inputs, channels, &plan->weights_bytes))
        return DRIP_ERR_CORRUPT;
    plan->channels = k->out->c;
    plan->units = (k->out->c + 3u) / 4u;
    plan->cost = 4 * inputs;
    return DRIP_ERR_OK;
}

void drip_dense_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    if (k->op->layout_id == DRIP_LAYOUT_PAIRS) {
#ifdef DRIP_DSP
        drip_dense_dsp_run(k, first, count);
#else
        drip_dense_packed_run(k, first, count);
#endif
        return;
    }
    const uint32_t size = k->in0->size;
    const uint32_t end = 4 * (first + count) < k->out->c ? 4 * (first + count) : k->out->c;
    for (uint32_t c = 4 * first; c < end; c++) {
        const int8_t *w = k->weights + c * size;
        uint32_t sum = (uint32_t)k->bias[c];
        for (uint32_t i = 0; i < size; i++)
            sum += (uint32_t)(k->x0[i] * w[i]);
        drip_emit(k, c, sum, k->y + c);
        drip_sign(k, c, sum);
    }
}
