/* SOFTMAX (unit: a row of channels) and LOGISTIC (unit: an element) as TensorFlow Lite's reference
 * computes them with gemmlowp's fixed-point functions. A value with n integer bits and 31 - n
 * fractional bits is called Qn; the functions below follow gemmlowp/fixedpoint/fixedpoint.h. */
#include "kernels.h"

enum {
    SOFTMAX_BITS = 5,       /* integer bits of a scaled difference */
    SOFTMAX_SUM_BITS = 12,  /* integer bits of the sum of exponentials */
    SOFTMAX_MAX_ROW = 2048, /* exponentials that the sum can take */
    LOGISTIC_BITS = 4,
    COST_EXP = 60,
    ONE_Q0 = INT32_MAX,
    ONE_Q2 = 1 << 29
};

/* x * 2^bits, saturating. */
static int32_t shift_left_saturating(int32_t x, uint32_t bits)
{
    const int32_t limit = INT32_MAX >> bits;
    if (x > limit)
        return INT32_MAX;
    return x < -limit ? INT32_MIN : drip_shl32(x, bits);
}

/* exp(a) in Q0 for a in Q0, -1/4 <= a < 0: Taylor series around -1/8. */
static int32_t exp_of_quarter(int32_t a)
{
    const int32_t exp_of_minus_eighth = 1895147668;
    const int32_t third = 715827883;
    const int32_t x = drip_add32(a, 1 << 28);
    const int32_t x2 = drip_mulhi(x, x);
    const int32_t x3 = drip_mulhi(x2, x);
    const int32_t x4_over_4 = drip_rounding_shift(drip_mulhi(x2, x2), 2);
    const int32_t tail = drip_add32(drip_mulhi(drip_add32(x4_over_4, x3), third), x2);
    const int32_t series = drip_add32(x, drip_rounding_shift(tail, 1));
    return drip_add32(exp_of_minus_eighth, drip_mulhi(exp_of_minus_eighth, series));
}

/* One factor of the barrel shifter: exp(-2^n) when bit n of the remainder is set. */
static int32_t exp_factor(int32_t result, uint32_t remainder, uint32_t bit, int32_t factor)
{
    return (remainder >> bit & 1u) != 0 ? drip_mulhi(result, factor) : result;
}

/* exp(a) in Q0 for a <= 0 in Q(bits). */
static int32_t exp_of_negative(int32_t a, uint32_t bits)
{
    const uint32_t fraction = 31 - bits;
    const int32_t quarter = 1 << (fraction - 2);
    const int32_t part = (a & (quarter - 1)) - quarter;
    const uint32_t remainder = (uint32_t)part - (uint32_t)a;
    int32_t result = exp_of_quarter(drip_shl32(part, bits));
    result = exp_factor(result, remainder, fraction - 2, 1672461947);
    result = exp_factor(result, remainder, fraction - 1, 1302514674);
    result = exp_factor(result, remainder, fraction, 790015084);
    result = exp_factor(result, remainder, fraction + 1, 290630308);
    result = exp_factor(result, remainder, fraction + 2, 39332535);
    result = exp_factor(result, remainder, fraction + 3, 720401);
    if (bits > 4)
        result = exp_factor(result, remainder, fraction + 4, 242);
    return a == 0 ? ONE_Q0 : result;
}

/* 1 / (1 + a) in Q0 for a in Q0, 0 <= a < 1: three Newton-Raphson steps in Q2. */
static int32_t inverse_of_one_plus(int32_t a)
{
    const int32_t half_denominator = (int32_t)(((uint32_t)a + 0x80000000u) >> 1);
    int32_t x = drip_add32(1515870810, drip_mulhi(half_denominator, -1010580540));
    for (int step = 0; step < 3; step++) {
        const int32_t error = drip_add32(ONE_Q2, -drip_mulhi(half_denominator, x));
        x = drip_add32(x, shift_left_saturating(drip_mulhi(x, error), 2));
    }
    return shift_left_saturating(x, 1);
}

/* Halves away from zero at 2^bits, for any bits > 0. */
static int32_t narrow(int32_t x, uint32_t bits)
{
    return bits > 31 ? 0 : drip_rounding_shift(x, bits);
}

int drip_softmax_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    if (k->in0->size != k->out->size || k->in0->c != k->out->c || op->mult0 < 0 || op->shift0 < 0 ||
        op->shift0 > 31 || (int32_t)op->param0 > 0)
        return DRIP_ERR_CORRUPT;
    if (k->in0->c > SOFTMAX_MAX_ROW)
        return DRIP_ERR_UNSUPPORTED;
    plan->units = (uint32_t)k->in0->h * k->in0->w;
    plan->cost = 2u * COST_EXP * k->in0->c;
    return DRIP_ERR_OK;
}

static int32_t softmax_exp(const drip_blob_op_t *op, int32_t difference)
{
    const int32_t scaled = drip_mulhi(drip_shl32(difference, (uint32_t)op->shift0), op->mult0);
    return exp_of_negative(scaled, SOFTMAX_BITS);
}

static void softmax_row(const drip_blob_op_t *op, const int8_t *x, int8_t *y, uint32_t count)
{
    int32_t top = INT8_MIN;
    for (uint32_t i = 0; i < count; i++)
        top = x[i] > top ? x[i] : top;
    const int32_t least = (int32_t)op->param0;
    int32_t sum = 0;
    for (uint32_t i = 0; i < count; i++)
        if (x[i] - top >= least)
            sum += drip_rounding_shift(softmax_exp(op, x[i] - top), SOFTMAX_SUM_BITS);
    /* The largest element alone contributes 1, so the sum is not zero. */
    const uint32_t headroom = (uint32_t)__builtin_clz((uint32_t)sum);
    const int32_t inverse =
        inverse_of_one_plus((int32_t)(((uint32_t)sum << headroom) - 0x80000000u));
    const uint32_t bits = SOFTMAX_SUM_BITS - headroom + 31 - 8;
    for (uint32_t i = 0; i < count; i++) {
        int32_t value = 0;
        if (x[i] - top >= least)
            value = narrow(drip_mulhi(inverse, softmax_exp(op, x[i] - top)), bits);
        y[i] = drip_clamp(value - 128, -128, 127);
    }
}

void drip_softmax_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    for (uint32_t row = first; row < first + count; row++)
        softmax_row(k->op, k->x0 + row * k->in0->c, k->y + row * k->in0->c, k->in0->c);
}

int drip_logistic_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    if (k->in0->size != k->out->size || !drip_scale_ok(k->op->mult0, k->op->shift0) ||
        k->op->param0 > INT32_MAX)
        return DRIP_ERR_CORRUPT;
    plan->units = k->in0->size;
    plan->cost = COST_EXP;
    return DRIP_ERR_OK;
}

static int32_t logistic(int32_t a)
{
    if (a == 0)
        return 1 << 30;
    const int32_t minus = a > 0 ? -a : a;
    const int32_t positive = inverse_of_one_plus(exp_of_negative(minus, LOGISTIC_BITS));
    return a > 0 ? positive : ONE_Q0 - positive;
}

void drip_logistic_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    const int32_t radius = (int32_t)op->param0;
    for (uint32_t i = first; i < first + count; i++) {
        const int32_t x = k->x0[i] - op->in0_zero;
        if (x <= -radius || x >= radius) {
            k->y[i] = x <= -radius ? -128 : 127;
            continue;
        }
        const int32_t value = logistic(drip_scale(x, op->mult0, op->shift0));
        k->y[i] = drip_clamp(drip_rounding_shift(value, 31 - 8) - 128, -128, 127);
    }
}
