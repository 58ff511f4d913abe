/* Near-duplicates: a small picture of the input against those of frames kept lately. */
#include "policy_internal.h"
#include "kernels/dsp.h"

#include <string.h>

enum { SIDE = 5, STRETCHES = 8, LOOKS = 4, DISTANCE_SCALE = 16, MIDDLE = 128, CUTS = 16 };

/* How an input is cut: every `columns` stretches of the bytes of a line, `rows` stretches of lines. */
typedef struct {
    uint32_t lines;
    uint32_t line; /* bytes */
    uint32_t rows;
    uint32_t columns;
    uint32_t cuts[CUTS]; /* where a column starts, and the end */
} grid_t;

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A picture: 5 x 5 cells over all channels. A series: stretches of each channel; of all channels
 * together where there are many. */
static void cut(grid_t *grid, const drip_blob_tensor_t *input)
{
    uint32_t width = input->w, unit = input->c;
    grid->lines = input->h;
    grid->line = width * unit;
    if (input->h == 1 || input->w == 1) {
        const int vector = (uint32_t)input->h * input->w == 1;
        grid->lines = vector ? input->c : (uint32_t)input->h * input->w;
        grid->line = vector ? 1 : input->c;
        width = grid->line <= DRIP_THUMB_BYTES / 2 ? grid->line : 1;
        unit = grid->line / width;
        grid->columns = width;
        grid->rows = least(grid->lines, least(DRIP_THUMB_BYTES / width, STRETCHES));
    } else {
        grid->columns = least(width, SIDE);
        grid->rows = least(grid->lines, SIDE);
    }
    for (uint32_t i = 0; i <= grid->columns; i++)
        grid->cuts[i] = i * width / grid->columns * unit;
}

/* Sum of `run` neighbours in each of `count` lines; at least one of each. */
static inline int32_t sum_of(const int8_t *x, uint32_t run, uint32_t count, uint32_t step)
{
    int32_t sum = 0;
    if (run == 1) {
        for (; count != 0; count--, x += step)
            sum += *x;
        return sum;
    }
#ifdef DRIP_DSP
    /* Words are summed as bytes + 128. */
    const uint32_t whole = run & ~3u;
    sum = -(int32_t)(MIDDLE * whole * count);
#endif
    for (; count != 0; count--, x += step) {
        const int8_t *at = x, *const end = x + run;
#ifdef DRIP_DSP
        for (const int8_t *const fours = x + whole; at != fours; at += 4)
            sum = drip_dsp_sad(drip_dsp_word(at) ^ 0x80808080U, 0, sum);
#endif
        while (at != end)
            sum += *at++;
    }
    return sum;
}

/* Of a tall cell four lines are looked at, evenly: a mean needs no more. Returns the sum of means. */
static int32_t means_of(const grid_t *grid, const int8_t *x, int32_t *mean)
{
    int32_t total = 0;
    uint32_t y0 = 0;
    for (uint32_t r = 1; r <= grid->rows; r++) {
        const uint32_t y1 = r * grid->lines / grid->rows, span = y1 - y0;
        const uint32_t count = least(span, LOOKS), step = span / count * grid->line;
        const int8_t *line = x + y0 * grid->line;
        for (uint32_t c = 0; c < grid->columns; c++) {
            const uint32_t run = grid->cuts[c + 1] - grid->cuts[c];
            const int32_t sum = sum_of(line + grid->cuts[c], run, count, step);
            *mean = sum / (int32_t)(count * run);
            total += *mean++;
        }
        y0 = y1;
    }
    return total;
}

static inline uint8_t to_byte(int32_t value)
{
#ifdef DRIP_DSP
    __asm("usat %0, #8, %0" : "+r"(value));
    return (uint8_t)value;
#else
    return (uint8_t)(value < 0 ? 0 : value > UINT8_MAX ? UINT8_MAX : value);
#endif
}

uint32_t drip_policy_thumb(const drip_nn_t *nn, drip_thumb_t *out)
{
    grid_t grid;
    int32_t mean[DRIP_THUMB_BYTES];
    cut(&grid, &nn->tensors[nn->header.input_tensor]);
    const uint32_t cells = grid.rows * grid.columns;
    const int32_t lift = MIDDLE - means_of(&grid, drip_nn_input(nn), mean) / (int32_t)cells;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < cells; i++) {
        out->cell[i] = to_byte(mean[i] + lift);
    }
    return cells;
}

/* Sum of the differences; of whole pictures, beyond their cells they are equal. */
static uint32_t apart(const drip_thumb_t *a, const drip_thumb_t *b)
{
#ifdef DRIP_DSP
    int32_t sum = 0;
    for (uint32_t i = 0; i < DRIP_THUMB_BYTES; i += 4)
        sum = drip_dsp_sad(drip_dsp_word(a->cell + i), drip_dsp_word(b->cell + i), sum);
    return (uint32_t)sum;
#else
    uint32_t sum = 0;
    for (uint32_t i = 0; i < DRIP_THUMB_BYTES; i++)
        sum +=
            (uint32_t)(a->cell[i] < b->cell[i] ? b->cell[i] - a->cell[i] : a->cell[i] - b->cell[i]);
    return sum;
#endif
}

uint32_t drip_policy_distance(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t cells)
{
    return apart(a, b) * DISTANCE_SCALE / cells;
}

int drip_policy_seen(const drip_policy_t *policy, uint32_t least)
{
    const uint32_t limit = (least * policy->thumb_cells + DISTANCE_SCALE - 1) / DISTANCE_SCALE;
    for (uint32_t i = 0; limit != 0 && i < policy->thumb_count; i++)
        if (apart(&policy->thumb, &policy->ring[i]) < limit)
            return 1;
    return 0;
}

void drip_policy_look(drip_policy_t *policy, const drip_nn_t *nn)
{
    policy->thumb_cells = 0;
    if (policy->config.redundancy != 0)
        policy->thumb_cells = (uint8_t)drip_policy_thumb(nn, &policy->thumb);
}
