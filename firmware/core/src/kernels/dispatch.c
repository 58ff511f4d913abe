/* Chooses the kernel of an operator. Comparisons instead of a table: the core may hold no constant
 * data, and an operator that DRIP_OPS leaves out leaves no reference behind. */
#include "kernels.h"

#define IS(kind_, op_) (((DRIP_OPS >> (op_)) & 1u) != 0 && (kind_) == (op_))

int drip_kernel_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const uint32_t kind = k->op->kind;
    if (IS(kind, DRIP_OP_CONV_2D))
        return drip_conv_plan(k, plan);
    if (IS(kind, DRIP_OP_DEPTHWISE_CONV_2D))
        return drip_depthwise_plan(k, plan);
    if (IS(kind, DRIP_OP_FULLY_CONNECTED))
        return drip_dense_plan(k, plan);
    if (IS(kind, DRIP_OP_AVERAGE_POOL_2D) || IS(kind, DRIP_OP_MAX_POOL_2D))
        return drip_pool_plan(k, plan);
    if (IS(kind, DRIP_OP_MEAN))
        return drip_mean_plan(k, plan);
    if (IS(kind, DRIP_OP_ADD))
        return drip_add_plan(k, plan);
    if (IS(kind, DRIP_OP_MUL))
        return drip_mul_plan(k, plan);
    if (IS(kind, DRIP_OP_PAD))
        return drip_pad_plan(k, plan);
    if (IS(kind, DRIP_OP_COPY))
        return drip_copy_plan(k, plan);
    if (IS(kind, DRIP_OP_SOFTMAX))
        return drip_softmax_plan(k, plan);
    if (IS(kind, DRIP_OP_LOGISTIC))
        return drip_logistic_plan(k, plan);
    if (IS(kind, DRIP_OP_REQUANTIZE))
        return drip_requantize_plan(k, plan);
    return DRIP_ERR_UNSUPPORTED;
}

void drip_kernel_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const uint32_t kind = k->op->kind;
    if (IS(kind, DRIP_OP_CONV_2D))
        drip_conv_run(k, first, count);
    else if (IS(kind, DRIP_OP_DEPTHWISE_CONV_2D))
        drip_depthwise_run(k, first, count);
    else if (IS(kind, DRIP_OP_FULLY_CONNECTED))
        drip_dense_run(k, first, count);
    else if (IS(kind, DRIP_OP_AVERAGE_POOL_2D))
        drip_average_pool_run(k, first, count);
    else if (IS(kind, DRIP_OP_MAX_POOL_2D))
        drip_max_pool_run(k, first, count);
    else if (IS(kind, DRIP_OP_MEAN))
        drip_mean_run(k, first, count);
    else if (IS(kind, DRIP_OP_ADD))
        drip_add_run(k, first, count);
    else if (IS(kind, DRIP_OP_MUL))
        drip_mul_run(k, first, count);
    else if (IS(kind, DRIP_OP_PAD))
        drip_pad_run(k, first, count);
    else if (IS(kind, DRIP_OP_COPY))
        drip_copy_run(k, first, count);
    else if (IS(kind, DRIP_OP_SOFTMAX))
        drip_softmax_run(k, first, count);
    else if (IS(kind, DRIP_OP_LOGISTIC))
        drip_logistic_run(k, first, count);
    else if (IS(kind, DRIP_OP_REQUANTIZE))
        drip_requantize_run(k, first, count);
}
