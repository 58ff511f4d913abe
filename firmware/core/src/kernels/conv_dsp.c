/* CONV_2D in layout PAIRS on a Cortex-M with DSP instructions. Four output positions at a time are
 * gathered as widened columns, then multiplied with all channels; two positions, not widened, at the
 * end and where there is little scratch. */
#include "dsp.h"

#ifdef DRIP_DSP

/* Some output positions and where their taps come from. */
typedef struct {
    const drip_kernel_t *k;
    int8_t *scratch;
    int8_t *spare;  /* behind four columns: in_c taps outside the image, or four rows of taps */
    uint32_t row;   /* bytes of a row of taps, a multiple of 4 */
    uint32_t words; /* in_c is a multiple of 4 */
    int shared;     /* is_shared */
    int32_t top[4];
    int32_t left[4];
    uint32_t at[4];  /* input element of a column's first tap; wraps when that is outside */
    uint32_t inside; /* no column sticks out to the left or right */
    uint32_t whole;  /* nor up or down, and rows rounded up to words stay in the tensor */
} gather_t;

static int has_words(const drip_kernel_t *k)
{
    return (k->in0->c & 3) == 0;
}

static uint32_t scratch_of(const drip_kernel_t *k, uint32_t columns, uint32_t taps)
{
    const uint32_t row = drip_layout_row((uint32_t)k->op->kernel_w * k->in0->c);
    if (columns == 2)
        return 2 * taps;
    return 8 * taps + (has_words(k) ? k->in0->c : 4 * row);
}

void drip_conv_dsp_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    const uint32_t taps = plan->weights_bytes / ((k->out->c + 1u) & ~1u);
    uint32_t columns = 4;
    plan->scratch_bytes = UINT32_MAX;
    if (taps > DRIP_ARENA_MAX / 16)
        return; /* no arena is that large: opening will refuse it */
    if (k->op->scratch_bytes < scratch_of(k, 4, taps))
        columns = 2;
    plan->units = (plan->units + columns - 1) / columns;
    plan->cost *= columns;
    plan->scratch_bytes = scratch_of(k, columns, taps);
}

/* Sets the columns of a block; columns past the last position repeat it. */
static void place(gather_t *g, drip_dsp_block_t *block, drip_cursor_t *at, uint32_t left)
{
    const drip_blob_op_t *op = g->k->op;
    const drip_blob_tensor_t *in = g->k->in0;
    const int32_t most_x = in->w - op->kernel_w, most_y = in->h - op->kernel_h;
    const uint32_t last = (uint32_t)(op->kernel_h - 1) * in->w * in->c + g->row;
    g->inside = g->whole = 1;
    for (uint32_t column = 0; column < block->count; column++) {
        const int32_t x = at->x * op->stride_w - op->pad_left;
        const int32_t y = at->y * op->stride_h - op->pad_top;
        g->left[column] = x;
        g->top[column] = y;
        g->at[column] = (uint32_t)(y * in->w + x) * in->c;
        g->inside &= x >= 0 && x <= most_x;
        g->whole &= y >= 0 && y <= most_y && g->at[column] + last <= in->size;
        if (column < 3)
            block->step[column] = column + 1 < left ? g->k->out->c : 0;
        if (column + 1 < left)
            drip_cursor_next(at);
    }
    g->whole &= g->inside;
}

static void fill_row(int8_t *row, uint32_t bytes, int32_t value)
{
    const uint32_t word = (uint32_t)(value & 0xFF) * 0x01010101U;
    for (const int8_t *end = row + bytes; row != end; row += 4)
        memcpy(row, &word, 4);
}

/* Copies the taps of row ky of a column that lie inside the image; the others see the zero point. */
static void stage(const gather_t *g, uint32_t column, int32_t ky, int8_t *row)
{
    const drip_blob_tensor_t *in = g->k->in0;
    const int32_t y = g->top[column] + ky;
    const int32_t left = g->left[column];
    const int32_t first = left < 0 ? -left : 0;
    int32_t end = in->w - left;
    if (end > g->k->op->kernel_w)
        end = g->k->op->kernel_w;
    const int outside = (uint32_t)y >= in->h || first >= end;
    if (outside || first != 0 || end != g->k->op->kernel_w)
        fill_row(row, g->row, g->k->op->in0_zero);
    if (outside)
        return;
    const int8_t *x = g->k->x0 + (y * in->w + left + first) * in->c;
    const int32_t bytes = (end - first) * in->c;
    row += first * in->c;
    if (bytes >= 16)
        memcpy(row, x, (uint32_t)bytes);
    else
        for (const int8_t *stop = x + bytes; x != stop; x++)
            *row++ = *x;
}

/* Where row ky of a column lies in the input. NULL when it is not there as words: a part is outside
 * the image, or a row that is rounded up would leave the tensor. */
static const int8_t *direct(const gather_t *g, uint32_t column, int32_t ky)
{
    const drip_blob_tensor_t *in = g->k->in0;
    const uint32_t at = g->at[column] + (uint32_t)ky * in->w * in->c;
    if (!g->inside || (uint32_t)(g->top[column] + ky) >= in->h || at + g->row > in->size)
        return NULL;
    return g->k->x0 + at;
}

/* All rows of a block that lies in the image as a whole. */
static void widen_whole(const gather_t *g)
{
    const drip_blob_tensor_t *in = g->k->in0;
    const uint32_t pitch = (uint32_t)in->w * in->c;
    const int8_t *x = g->k->x0;
    const int8_t *source[4] = {x + g->at[0], x + g->at[1], x + g->at[2], x + g->at[3]};
    int16_t *to = (int16_t *)(void *)g->scratch;
    for (uint32_t rows = g->k->op->kernel_h; rows > 0; rows--) {
        to = drip_dsp_widen(source, to, g->row / 4);
        source[0] += pitch;
        source[1] += pitch;
        source[2] += pitch;
        source[3] += pitch;
    }
}

/* One tap (in_c values, whole words) after the other. */
static int16_t *widen_taps(const gather_t *g, int32_t ky, int16_t *to)
{
    const drip_blob_tensor_t *in = g->k->in0;
    const int8_t *source[4];
    for (int32_t kx = 0; kx < g->k->op->kernel_w; kx++) {
        for (uint32_t column = 0; column < 4; column++) {
            const int32_t y = g->top[column] + ky;
            const int32_t x = g->left[column] + kx;
            const int inside = (uint32_t)y < in->h && (uint32_t)x < in->w;
            source[column] = inside ? g->k->x0 + (y * in->w + x) * in->c : g->spare;
        }
        to = drip_dsp_widen(source, to, in->c / 4u);
    }
    return to;
}

static int16_t *widen_row(const gather_t *g, int32_t ky, int16_t *to)
{
    const int8_t *source[4];
    for (uint32_t column = 0; column < 4; column++) {
        source[column] = direct(g, column, ky);
        if (source[column] != NULL)
            continue;
        if (g->words)
            return widen_taps(g, ky, to);
        int8_t *row = g->spare + column * g->row;
        stage(g, column, ky, row);
        source[column] = row;
    }
    return drip_dsp_widen(source, to, g->row / 4);
}

/* Whether outputs may be written over inputs. */
static int is_shared(const drip_kernel_t *k)
{
    return k->x0 < k->y + k->out->size && k->y < k->x0 + k->in0->size;
}

/* All taps of a column in one piece. They are read again for every pair of channels, when some
 * outputs are written: they cannot stay where those go. */
static const int8_t *column_of(const gather_t *g, uint32_t column)
{
    const int32_t rows = g->k->op->kernel_h;
    const int8_t *there = rows == 1 && !g->shared ? direct(g, column, 0) : NULL;
    if (there != NULL)
        return there;
    int8_t *copy = g->scratch + column * (uint32_t)rows * g->row;
    for (int32_t ky = 0; ky < rows; ky++)
        stage(g, column, ky, copy + (uint32_t)ky * g->row);
    return copy;
}

static void run_pairs(drip_dsp_block_t *block, uint32_t pairs)
{
    block->pairs = pairs;
    if (block->count == 4)
        drip_dsp_block4(block);
    else
        drip_dsp_block2(block);
}

static void multiply(drip_dsp_block_t *block, int8_t *y)
{
    const drip_kernel_t *k = block->k;
    const uint32_t channels = k->out->c;
    block->weights = k->weights;
    block->bias = k->bias;
    block->quant = k->quant;
    block->out = y;
    block->single = 0;
    block->fast = k->op->flags & DRIP_OP_FLAG_FAST_REQUANT;
    if (channels > 1)
        run_pairs(block, channels / 2);
    if ((channels & 1) != 0) {
        const int32_t bias[2] = {k->bias[channels - 1], 0};
        block->bias = bias;
        block->single = 1;
        block->fast = 0;
        run_pairs(block, 1);
    }
}

void drip_conv_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    const drip_blob_op_t *op = k->op;
    const uint32_t positions = (uint32_t)k->out->h * k->out->w;
    gather_t g = {
        .k = k, .scratch = k->scratch, .words = has_words(k) != 0, .shared = is_shared(k)};
    g.row = drip_layout_row((uint32_t)op->kernel_w * k->in0->c);
    const uint32_t taps = op->kernel_h * g.row;
    g.spare = g.scratch + 8 * taps;
    drip_dsp_block_t block = {.k = k, .pair_bytes = 2 * taps, .out_zero = op->out_zero};
    const uint32_t columns = op->scratch_bytes < scratch_of(k, 4, taps) ? 2 : 4;
    if (columns == 4 && g.words)
        memset(g.spare, op->in0_zero, k->in0->c);
    uint32_t position = columns * first;
    drip_cursor_t at = drip_cursor(k->out, position);
    for (; count > 0; count--, position += columns) {
        const uint32_t left = positions - position;
        block.count = left > 2 ? columns : 2;
        place(&g, &block, &at, left);
        if (block.count == 2) {
            block.columns = column_of(&g, 0);
            block.u.second = column_of(&g, 1);
        } else {
            int16_t *to = k->scratch;
            block.columns = to;
            if (g.whole)
                widen_whole(&g);
            else
                for (int32_t ky = 0; ky < op->kernel_h; ky++)
                    to = widen_row(&g, ky, to);
        }
        multiply(&block, k->y + position * k->out->c);
    }
}

#else
typedef int drip_conv_dsp_unused_t;
#endif
