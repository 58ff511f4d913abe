/* ADD of two tensors on a Cortex-M with DSP instructions. */
#include "dsp.h"

#ifdef DRIP_DSP

enum { HALF = 1 << 30 };

/* The operand with the larger scale is always scaled by one half, the other one by less. */
typedef struct {
    const int8_t *half;
    const int8_t *less;
    int32_t constant; /* zero point of `half`, scaled */
    int32_t zero;     /* zero point of `less`, shifted */
    int32_t mult;
    int32_t right;
} operands_t;

static int is_half(int32_t mult, int32_t shift)
{
    return mult == HALF && shift == 0;
}

static void operands_of(const drip_kernel_t *k, operands_t *o)
{
    const drip_blob_op_t *op = k->op;
    const int first = is_half(op->mult0, op->shift0);
    o->half = first ? k->x0 : k->x1;
    o->less = first ? k->x1 : k->x0;
    o->constant = -(first ? op->in0_zero : op->in1_zero) * (1 << 19);
    o->zero = (first ? op->in1_zero : op->in0_zero) * (1 << 20);
    o->mult = first ? op->mult1 : op->mult0;
    o->right = first ? -op->shift1 : -op->shift0;
}

int drip_add_dsp_can(const drip_kernel_t *k)
{
    const drip_blob_op_t *op = k->op;
    const int first = is_half(op->mult0, op->shift0), second = is_half(op->mult1, op->shift1);
    const int32_t less = first ? op->shift1 : op->shift0;
    return k->in1 != NULL && first != second && less < 0 && op->shift2 < 0 &&
           op->clamp_min == INT8_MIN && op->clamp_max == INT8_MAX;
}

/* drip_dsp_requant without zero point and saturation; adds both operands. */
static inline int32_t sum_of(const operands_t *o, int32_t half, int32_t less)
{
    int32_t low, high, value;
    __asm("rsb %2, %5, %4, lsl #20\n\t"
          "smull %0, %1, %2, %6\n\t"
          "lsrs %0, %0, #31\n\t"
          "adc %1, %0, %1, lsl #1\n\t"
          "add %1, %1, %1, asr #31\n\t"
          "asrs %1, %1, %7\n\t"
          "adc %2, %1, %8\n\t"
          "add %2, %2, %3, lsl #19"
          : "=&r"(low), "=&r"(high), "=&r"(value)
          : "r"(half), "r"(less), "r"(o->zero), "r"(o->mult), "r"(o->right), "r"(o->constant)
          : "cc");
    return value;
}

void drip_add_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    operands_t o;
    operands_of(k, &o);
    const int32_t mult = k->op->mult2, right = -k->op->shift2, zero = k->op->out_zero;
    const int8_t *half = o.half + first, *less = o.less + first;
    int8_t *y = k->y + first;
    for (const int8_t *end = y + count; y != end; y++)
        *y = (int8_t)drip_dsp_requant(sum_of(&o, *half++, *less++), mult, right, zero);
}

#else
typedef int drip_add_dsp_unused_t;
#endif
