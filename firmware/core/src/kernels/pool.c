/* AVERAGE_POOL_2D, MAX_POOL_2D (unit: an output position) and MEAN over height and width (unit: a
 * channel), portable. */
#include "dsp.h"

int drip_pool_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const drip_blob_op_t *op = k->op;
    if (op->dilation_h != 1 || op->dilation_w != 1 || k->in0->c != k->out->c ||
        drip_window_check(k) != DRIP_ERR_OK)
        return DRIP_ERR_CORRUPT;
    /* A window without dilation that passed the check holds at least one element. */
    const uint32_t rows = op->kernel_h < k->in0->h ? op->kernel_h : k->in0->h;
    const uint32_t columns = op->kernel_w < k->in0->w ? op->kernel_w : k->in0->w;
    plan->units = (uint32_t)k->out->h * k->out->w;
    plan->cost = rows * columns * k->out->c;
    return DRIP_ERR_OK;
}

static drip_patch_t patch_at(const drip_kernel_t *k, const drip_cursor_t *at)
{
    const drip_blob_op_t *op = k->op;
    const int32_t top = at->y * op->stride_h - op->pad_top;
    const int32_t left = at->x * op->stride_w - op->pad_left;
    const drip_span_t rows = drip_clip(top, op->kernel_h, 1, k->in0->h);
    const drip_span_t columns = drip_clip(left, op->kernel_w, 1, k->in0->w);
    const drip_patch_t patch = {k->x0 + drip_tap_offset(k, top, left, rows, columns),
                                rows.end - rows.first, columns.end - columns.first, k->in0->c,
                                k->in0->w * k->in0->c};
    return patch;
}

static int32_t patch_average(const drip_patch_t *patch, int32_t channel)
{
    int32_t sum = 0;
    for (int32_t row = 0; row < patch->rows; row++) {
        int32_t at = channel + row * patch->pitch;
        for (int32_t n = patch->columns; n > 0; n--, at += patch->step)
            sum += patch->x[at];
    }
    const int32_t count = patch->rows * patch->columns;
    return (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
}

static int32_t patch_max(const drip_patch_t *patch, int32_t channel)
{
    int32_t best = INT8_MIN;
    for (int32_t row = 0; row < patch->rows; row++) {
        int32_t at = channel + row * patch->pitch;
        for (int32_t n = patch->columns; n > 0; n--, at += patch->step)
            best = patch->x[at] > best ? patch->x[at] : best;
    }
    return best;
}

void drip_average_pool_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    drip_cursor_t at = drip_cursor(k->out, first);
    int8_t *y = k->y + first * k->out->c;
    for (; count > 0; count--, drip_cursor_next(&at)) {
        const drip_patch_t patch = patch_at(k, &at);
        int32_t c = 0;
#ifdef DRIP_DSP
        c = drip_average_dsp(&patch, k, y);
        y += c;
#endif
        for (; c < k->out->c; c++)
            *y++ = drip_clamp(patch_average(&patch, c), k->op->clamp_min, k->op->clamp_max);
    }
}

void drip_max_pool_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    drip_cursor_t at = drip_cursor(k->out, first);
    int8_t *y = k->y + first * k->out->c;
    for (; count > 0; count--, drip_cursor_next(&at)) {
        const drip_patch_t patch = patch_at(k, &at);
        int32_t c = 0;
#ifdef DRIP_DSP
        c = drip_max_dsp(&patch, k, y);
        y += c;
#endif
        for (; c < k->out->c; c++)
            *y++ = drip_clamp(patch_max(&patch, c), k->op->clamp_min, k->op->clamp_max);
    }
}

int drip_mean_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    if (k->out->size != k->in0->c || !drip_scale_ok(k->op->mult0, k->op->shift0))
        return DRIP_ERR_CORRUPT;
    plan->units = k->in0->c;
    plan->cost = (uint32_t)k->in0->h * k->in0->w;
    return DRIP_ERR_OK;
}

void drip_mean_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    const uint32_t pixels = (uint32_t)k->in0->h * k->in0->w;
    for (uint32_t c = first; c < first + count; c++) {
        int32_t sum = 0;
        for (uint32_t at = c; at < k->in0->size; at += k->in0->c)
            sum += k->x0[at];
        const int32_t scaled =
            drip_scale(sum - op->in0_zero * (int32_t)pixels, op->mult0, op->shift0);
        k->y[c] = drip_clamp(drip_add32(scaled, op->out_zero), -128, 127);
    }
}
