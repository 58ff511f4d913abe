/* Near-duplicates: a small picture of the input against those of frames kept lately. */
#include "policy_internal.h"
#include "kernels/dsp.h"

#include <stddef.h>
#include <string.h>

enum { SIDE = 5, STRETCHES = 8, LOOKS = 4, DISTANCE_SCALE = 16, MIDDLE = 128 };

/* How an input is cut: `rows` stretches of lines, `columns` stretches of the `width` units of a line. */
typedef struct {
    uint32_t lines;
    uint32_t line; /* bytes */
    uint32_t width;
    uint32_t unit; /* bytes */
    uint32_t rows;
    uint32_t columns;
} grid_t;

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A picture: 5 x 5 cells over all channels. A series: stretches of each channel; of all channels
 * together where there are many. */
static void cut(grid_t *grid, const drip_blob_tensor_t *input)
{
    uint32_t lines = input->h, width = input->w, unit = input->c, rows = SIDE, side = SIDE;
    if (lines == 1 || width == 1) {
        lines *= width;
        if (lines == 1) {
            lines = unit;
            unit = 1;
        }
        width = side = 1;
        if (unit <= DRIP_THUMB_BYTES / 2) {
            width = side = unit;
            unit = 1;
        }
        rows = least(DRIP_THUMB_BYTES / width, STRETCHES);
    }
    grid->lines = lines;
    grid->line = width * unit;
    grid->width = width;
    grid->unit = unit;
    grid->rows = least(lines, rows);
    grid->columns = least(width, side);
}

/* Means of single bytes in four lines. */
__attribute__((noinline)) static void quads(const int8_t *x, uint32_t columns, uint32_t step,
                                            int8_t *mean)
{
    for (const int8_t *const end = x + columns; x != end; x++)
        *mean++ = (int8_t)((x[0] + x[step] + x[2 * step] + x[3 * step]) / LOOKS);
}

/* Means of cells in a line and in the one `second` behind it. A line alone counts twice: the mean is
 * the same. */
__attribute__((noinline)) static void pairs(const grid_t *grid, const int8_t *x, uint32_t second,
                                            int8_t *mean)
{
    const uint32_t width = grid->width, columns = grid->columns, unit = grid->unit;
    const int8_t *const line = x, *const last = x + grid->line;
    uint32_t edge = 0;
    do {
        edge += width;
        const int8_t *const end = line + edge / columns * unit;
        int32_t looks = 2 * (int32_t)(end - x), sum = 0;
        do {
            sum += x[second] + *x;
        } while (++x != end);
        *mean++ = (int8_t)(sum / looks);
    } while (x != last);
}

/* Means of cells in any number of lines. */
__attribute__((noinline)) static void many(const grid_t *grid, const int8_t *x, uint32_t count,
                                           uint32_t step, int8_t *mean)
{
    for (uint32_t c = 1, from = 0; c <= grid->columns; c++) {
        const uint32_t to = c * grid->width / grid->columns * grid->unit, run = to - from;
        const int8_t *line = x + from;
        int32_t sum = 0;
        for (uint32_t i = 0; i < count; i++, line += step) {
            const int8_t *at = line, *const end = line + run;
#ifdef DRIP_DSP
            /* Words are summed as bytes + 128. */
            sum -= (int32_t)(MIDDLE * (run & ~3u));
            for (const int8_t *const fours = line + (run & ~3u); at != fours; at += 4)
                sum = drip_dsp_sad(drip_dsp_word(at) ^ 0x80808080U, 0, sum);
#endif
            while (at != end)
                sum += *at++;
        }
        *mean++ = (int8_t)(sum / (int32_t)(count * run));
        from = to;
    }
}

/* Of a tall cell four lines are looked at, evenly: a mean needs no more. */
static void means_of(const grid_t *grid, const int8_t *x, int8_t *mean)
{
    uint32_t y0 = 0;
    for (uint32_t y = grid->lines, r = grid->rows; r != 0; r--, y += grid->lines) {
        const uint32_t y1 = y / grid->rows, span = y1 - y0, count = least(span, LOOKS);
        const uint32_t step = span / count * grid->line;
        if (count <= 2)
            pairs(grid, x, count == 2 ? step : 0, mean);
        else if (count == LOOKS && grid->columns == grid->line)
            quads(x, grid->columns, step, mean);
        else
            many(grid, x, count, step, mean);
        mean += grid->columns;
        x += span * grid->line;
        y0 = y1;
    }
}

uint32_t drip_policy_thumb(const drip_nn_t *nn, drip_thumb_t *out)
{
    grid_t grid;
    int8_t mean[DRIP_THUMB_BYTES + 4];
    cut(&grid, &nn->tensors[nn->header.input_tensor]);
    const uint32_t cells = grid.rows * grid.columns;
    means_of(&grid, drip_nn_input(nn), mean);
    int32_t sum = 0;
    for (uint32_t i = 0; i < cells; i++)
        sum += mean[i];
    sum /= (int32_t)cells;
#ifdef DRIP_DSP
    const uint32_t middle = ((uint32_t)sum & 0xFFu) * 0x01010101U;
    for (uint32_t i = 0; i < cells; i += 4) {
        uint32_t four = drip_dsp_word(mean + i);
        __asm("qsub8 %0, %0, %1" : "+r"(four) : "r"(middle));
        four ^= 0x80808080U;
        memcpy(out->cell + i, &four, 4);
    }
#else
    for (uint32_t i = 0; i < cells; i++) {
        const int32_t value = mean[i] + MIDDLE - sum;
        out->cell[i] = (uint8_t)(value < 0 ? 0 : value > UINT8_MAX ? UINT8_MAX : value);
    }
#endif
    memset(out->cell + cells, 0, DRIP_THUMB_BYTES - cells);
    return cells;
}

static inline uint32_t apart_by(int32_t x, int32_t y)
{
    return (uint32_t)(x < y ? y - x : x - y);
}

/* Sum of the differences, or some value from `enough` on; of whole pictures, beyond their cells they
 * are equal. */
static uint32_t apart(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t enough)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < DRIP_THUMB_BYTES && sum < enough; i += 4) {
        const uint8_t *x = a->cell + i, *y = b->cell + i;
        sum += apart_by(x[0], y[0]) + apart_by(x[1], y[1]);
        sum += apart_by(x[2], y[2]) + apart_by(x[3], y[3]);
    }
    return sum;
}

uint32_t drip_policy_distance(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t cells)
{
    return apart(a, b, UINT32_MAX) * DISTANCE_SCALE / cells;
}

#ifdef DRIP_DSP

/* Whether one of `count` pictures, at least one, differs from `thumb` by less than `limit`: 14
 * instructions each. */
/* clang-format off */
__attribute__((naked)) static int seen_dsp(const drip_thumb_t *thumb, const drip_thumb_t *ring,
                                           uint32_t count, uint32_t limit)
{
    (void)thumb;
    (void)ring;
    (void)count;
    (void)limit;
    __asm volatile(
        "push {r4-r11, lr}\n\t"
        "ldm r0, {r4-r10}\n\t"
        "1:\n\t"
        "ldm r1!, {r0, r11, r12}\n\t"
        "usad8 lr, r0, r4\n\t"
        "usada8 lr, r11, r5, lr\n\t"
        "usada8 lr, r12, r6, lr\n\t"
        "ldm r1!, {r0, r11, r12}\n\t"
        "usada8 lr, r0, r7, lr\n\t"
        "usada8 lr, r11, r8, lr\n\t"
        "usada8 lr, r12, r9, lr\n\t"
        "ldr r0, [r1], #4\n\t"
        "usada8 lr, r0, r10, lr\n\t"
        "cmp lr, r3\n\t"
        "blo 2f\n\t"
        "subs r2, r2, #1\n\t"
        "bne 1b\n\t"
        "2:\n\t"
        "mov r0, r2\n\t" /* pictures that were left: none when all were looked at */
        "pop {r4-r11, pc}\n\t");
}
/* clang-format on */

/* Words are loaded in rows, which only works at multiples of four. */
_Static_assert(offsetof(drip_policy_t, thumb) % 4 == 0 && sizeof(drip_thumb_t) % 4 == 0,
               "pictures lie at multiples of four");

#endif

int drip_policy_seen(const drip_policy_t *policy, uint32_t least)
{
    const uint32_t limit = (least * policy->thumb_cells + DISTANCE_SCALE - 1) / DISTANCE_SCALE;
    if (limit == 0 || policy->thumb_count == 0)
        return 0;
#ifdef DRIP_DSP
    return seen_dsp(&policy->thumb, policy->ring, policy->thumb_count, limit);
#else
    for (uint32_t i = 0; i < policy->thumb_count; i++)
        if (apart(&policy->thumb, &policy->ring[i], limit) < limit)
            return 1;
    return 0;
#endif
}

void drip_policy_look(drip_policy_t *policy, const drip_nn_t *nn)
{
    policy->thumb_cells = 0;
    if (policy->config.redundancy != 0)
        policy->thumb_cells = (uint8_t)drip_policy_thumb(nn, &policy->thumb);
}
