/* Near-duplicates: a small picture of the input against those of frames kept lately. */
#include "policy_internal.h"
#include "kernels/dsp.h"

#include <string.h>

enum { SIDE = 5, STRETCHES = 8, LOOKS = 4, DISTANCE_SCALE = 16 };

/* Sum of neighbours. */
static int32_t sum_of(const int8_t *x, uint32_t count)
{
    int32_t sum = 0;
    uint32_t i = 0;
#ifdef DRIP_DSP
    for (; i + 4 <= count; i += 4) {
        const uint32_t word = drip_dsp_word(x + i);
        sum = drip_dsp_smlad(drip_dsp_even(word), 0x00010001U, sum);
        sum = drip_dsp_smlad(drip_dsp_odd(word), 0x00010001U, sum);
    }
#endif
    for (; i < count; i++)
        sum += x[i];
    return sum;
}

/* How many of `span` places are looked at, evenly: a mean needs no more. */
static uint32_t looks(uint32_t span)
{
    return span < LOOKS ? span : LOOKS;
}

/* A picture: 5 x 5 cells over all channels. Returns the number of cells. */
static uint32_t grid_means(const drip_blob_tensor_t *input, const int8_t *x, int32_t *mean)
{
    const uint32_t rows = input->h < SIDE ? input->h : SIDE;
    const uint32_t columns = input->w < SIDE ? input->w : SIDE;
    const uint32_t line = (uint32_t)input->w * input->c;
    for (uint32_t r = 0; r < rows; r++) {
        const uint32_t y0 = r * input->h / rows, span = (r + 1) * input->h / rows - y0;
        const uint32_t count = looks(span), step = span / count * line;
        uint32_t x0 = 0;
        for (uint32_t c = 0; c < columns; c++) {
            const uint32_t x1 = (c + 1) * input->w / columns, run = (x1 - x0) * input->c;
            const int8_t *from = x + y0 * line + x0 * input->c;
            int32_t sum = 0;
            for (uint32_t i = 0; i < count; i++, from += step)
                sum += sum_of(from, run);
            *mean++ = sum / (int32_t)(count * run);
            x0 = x1;
        }
    }
    return rows * columns;
}

/* A series: stretches of each channel; of all channels together where there are many. */
static uint32_t series_means(const drip_blob_tensor_t *input, const int8_t *x, int32_t *mean)
{
    const int vector = (uint32_t)input->h * input->w == 1;
    const uint32_t length = vector ? input->c : (uint32_t)input->h * input->w;
    const uint32_t line = vector ? 1 : input->c;
    const uint32_t channels = line <= DRIP_THUMB_BYTES / 2 ? line : 1, run = line / channels;
    const uint32_t most =
        DRIP_THUMB_BYTES / channels < STRETCHES ? DRIP_THUMB_BYTES / channels : STRETCHES;
    const uint32_t rows = length < most ? length : most;
    for (uint32_t r = 0; r < rows; r++) {
        const uint32_t y0 = r * length / rows, span = (r + 1) * length / rows - y0;
        const uint32_t count = looks(span), step = span / count * line;
        for (uint32_t c = 0; c < channels; c++) {
            const int8_t *from = x + y0 * line + c;
            int32_t sum = 0;
            for (uint32_t i = 0; i < count; i++, from += step)
                sum += run == 1 ? *from : sum_of(from, run);
            *mean++ = sum / (int32_t)(count * run);
        }
    }
    return rows * channels;
}

uint32_t drip_policy_thumb(const drip_nn_t *nn, drip_thumb_t *out)
{
    const drip_blob_tensor_t *input = &nn->tensors[nn->header.input_tensor];
    int32_t mean[DRIP_THUMB_BYTES];
    const uint32_t cells = input->h == 1 || input->w == 1
                               ? series_means(input, drip_nn_input(nn), mean)
                               : grid_means(input, drip_nn_input(nn), mean);
    int32_t total = 0;
    for (uint32_t i = 0; i < cells; i++)
        total += mean[i];
    total /= (int32_t)cells;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < cells; i++) {
        const int32_t value = mean[i] - total;
        out->cell[i] = (int8_t)(value < INT8_MIN ? INT8_MIN : value > INT8_MAX ? INT8_MAX : value);
    }
    return cells;
}

uint32_t drip_policy_distance(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t cells)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < cells; i++) {
        const int32_t difference = a->cell[i] - b->cell[i];
        sum += (uint32_t)(difference < 0 ? -difference : difference);
    }
    return sum * DISTANCE_SCALE / cells;
}

int drip_policy_alike(const drip_thumb_t *a, const drip_thumb_t *b, uint32_t cells, uint32_t least)
{
    const uint32_t limit = (least * cells + DISTANCE_SCALE - 1) / DISTANCE_SCALE;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < cells && sum < limit; i++) {
        const int32_t difference = a->cell[i] - b->cell[i];
        sum += (uint32_t)(difference < 0 ? -difference : difference);
    }
    return sum < limit;
}

void drip_policy_look(drip_policy_t *policy, const drip_nn_t *nn)
{
    policy->thumb_cells = 0;
    if (policy->config.redundancy != 0)
        policy->thumb_cells = (uint8_t)drip_policy_thumb(nn, &policy->thumb);
}
