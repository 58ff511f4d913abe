/* ADD, MUL, REQUANTIZE (unit: an element), PAD (unit: an output position) and COPY (unit: a block),
 * portable. The output of the first three may lie on the first input. */
#include "dsp.h"
#include "kernels.h"

/* Costs in multiply-accumulates of one element, so that a step takes about as long everywhere. */
enum { COST_ADD = 20, COST_MUL = 12, COST_REQUANTIZE = 10 };

static uint32_t operand_size(const drip_kernel_t *k)
{
    return (k->op->flags & DRIP_OP_FLAG_CONSTANT) != 0 ? k->op->weights_bytes : k->in1->size;
}

/* Two operands: tensors of one size, or a tensor and a constant of 1, channels or all elements. */
static int binary_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    const int constant = (op->flags & DRIP_OP_FLAG_CONSTANT) != 0;
    if (constant == (k->in1 != NULL) || k->in0->size != k->out->size ||
        !drip_scale_ok(op->mult0, op->shift0))
        return DRIP_ERR_CORRUPT;
    const uint32_t size = operand_size(k);
    if (size != k->in0->size && !(constant && (size == 1 || size == k->in0->c)))
        return DRIP_ERR_CORRUPT;
    plan->weights_bytes = constant ? size : 0;
    plan->units = k->out->size;
    return DRIP_ERR_OK;
}

int drip_add_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    plan->cost = COST_ADD;
    if (!drip_scale_ok(op->mult1, op->shift1) || !drip_scale_ok(op->mult2, op->shift2))
        return DRIP_ERR_CORRUPT;
    return binary_plan(k, plan);
}

void drip_add_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
#ifdef DRIP_DSP
    if (drip_add_dsp_can(k)) {
        drip_add_dsp_run(k, first, count);
        return;
    }
#endif
    /* A copy: writing bytes could change the operator for all the compiler knows. */
    const drip_blob_op_t op = *k->op;
    const int8_t *x0 = k->x0 + first;
    int8_t *y = k->y + first;
    const uint32_t size = operand_size(k);
    const int8_t *end = k->x1 + size;
    const int8_t *x1 = k->x1 + first % size;
    for (; count > 0; count--) {
        const int32_t a = (*x0++ - op.in0_zero) * (1 << 20);
        const int32_t b = (*x1++ - op.in1_zero) * (1 << 20);
        const int32_t sum =
            drip_add32(drip_scale(a, op.mult0, op.shift0), drip_scale(b, op.mult1, op.shift1));
        *y++ = drip_clamp(drip_add32(drip_scale(sum, op.mult2, op.shift2), op.out_zero),
                          op.clamp_min, op.clamp_max);
        if (x1 == end)
            x1 -= size;
    }
}

int drip_mul_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    plan->cost = COST_MUL;
    return binary_plan(k, plan);
}

void drip_mul_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    const uint32_t size = operand_size(k);
    uint32_t other = first % size;
    for (uint32_t i = first; i < first + count; i++) {
        const int32_t product = (k->x0[i] - op->in0_zero) * (k->x1[other] - op->in1_zero);
        const int32_t scaled = drip_scale(product, op->mult0, op->shift0);
        k->y[i] = drip_clamp(drip_add32(scaled, op->out_zero), op->clamp_min, op->clamp_max);
        if (++other == size)
            other = 0;
    }
}

int drip_requantize_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    if (k->in0->size != k->out->size || !drip_scale_ok(k->op->mult0, k->op->shift0))
        return DRIP_ERR_CORRUPT;
    plan->units = k->out->size;
    plan->cost = COST_REQUANTIZE;
    return DRIP_ERR_OK;
}

void drip_requantize_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    for (uint32_t i = first; i < first + count; i++) {
        const int32_t scaled = drip_scale(k->x0[i] - op->in0_zero, op->mult0, op->shift0);
        k->y[i] = drip_clamp(drip_add32(scaled, op->out_zero), op->clamp_min, op->clamp_max);
    }
}

int drip_pad_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    if (op->pad_top < 0 || op->pad_left < 0 || k->in0->c != k->out->c ||
        op->pad_top + k->in0->h > k->out->h || op->pad_left + k->in0->w > k->out->w)
        return DRIP_ERR_CORRUPT;
    plan->units = (uint32_t)k->out->h * k->out->w;
    plan->cost = k->out->c;
    return DRIP_ERR_OK;
}

void drip_pad_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    const drip_blob_tensor_t *in = k->in0;
    drip_cursor_t at = drip_cursor(k->out, first);
    int8_t *y = k->y + first * k->out->c;
    for (; count > 0; count--, drip_cursor_next(&at), y += in->c) {
        const int32_t row = at.y - op->pad_top;
        const int32_t column = at.x - op->pad_left;
        if (row < 0 || row >= in->h || column < 0 || column >= in->w)
            memset(y, op->out_zero, in->c);
        else
            memmove(y, k->x0 + (row * in->w + column) * in->c, in->c);
    }
}

int drip_copy_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    if (op->param0 == 0 || k->in0->size % op->param0 != 0)
        return DRIP_ERR_CORRUPT;
    const uint32_t blocks = k->in0->size / op->param0;
    uint32_t last = 0;
    if (op->param0 > k->out->size || op->weights_offset > k->out->size - op->param0 ||
        drip_mul_overflows(blocks - 1, op->param1, &last) ||
        last > k->out->size - op->param0 - op->weights_offset)
        return DRIP_ERR_CORRUPT;
    plan->units = blocks;
    plan->cost = op->param0;
    return DRIP_ERR_OK;
}

void drip_copy_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    int8_t *y = k->y + op->weights_offset;
    for (uint32_t i = first; i < first + count; i++)
        memmove(y + i * op->param1, k->x0 + i * op->param0, op->param0);
}
