/* Channel weights, map and sum of a Grad-CAM head; cam.c has proved that weights fit 16 bits and sums
 * 32. With DSP instructions each whole four of channels lies in the order 0 2 1 3, as SXTB16 takes
 * four features apart. */
#include "cam_internal.h"

#include "kernels/dsp.h"

/* Pairs of units, and a place for the end of the list. */
static uint32_t most_units(const drip_cam_t *cam)
{
    return cam_hidden(cam) != 0 ? (cam_hidden(cam) + 1u) / 2u + 1u : 0;
}

static int16_t *weights_of(const drip_cam_t *cam, void *scratch)
{
    return (int16_t *)((drip_cam_units_t *)scratch + most_units(cam));
}

/* Entries of each of the two rows that pass weights down the uppers. */
static uint32_t row_entries(const drip_cam_t *cam)
{
    uint32_t most = cam_uppers(cam) > 0 ? cam_hidden(cam) + 1u : 0;
    for (uint32_t n = 0; n < cam_uppers(cam); n++)
        most = cam->uppers[n].units + 1u > most ? cam->uppers[n].units + 1u : most;
    return most & ~1u;
}

static uint32_t channel_entries(const drip_cam_t *cam)
{
    return (cam->head->channels + 1u) & ~1u;
}

uint32_t drip_cam_scratch_bytes(const drip_cam_t *cam)
{
    return most_units(cam) * (uint32_t)sizeof(drip_cam_units_t) +
           (channel_entries(cam) + 2u * row_entries(cam)) * 2u;
}

/* Weights of the units of the lowest hidden layer for class c, through the uppers' active units. */
static const int16_t *pass_down(const drip_cam_t *cam, int c, void *scratch)
{
    int16_t *from = weights_of(cam, scratch) + channel_entries(cam);
    int16_t *to = from + row_entries(cam);
    const int8_t *row = cam->dense + (uint32_t)c * cam->uppers[0].units;
    const int8_t *matrix = cam->matrices;
    for (uint32_t u = 0; u < cam->uppers[0].units; u++)
        from[u] = row[u];
    for (uint32_t n = 0; n < cam->head->uppers; n++) {
        const uint32_t units = cam->uppers[n].units, below = drip_cam_units_below(cam, n);
        const drip_blob_tensor_t *desc = NULL;
        const int8_t *unit = drip_nn_tensor(cam->nn, cam->uppers[n].tensor, &desc);
        for (uint32_t h = 0; h < below; h++) {
            int32_t sum = 0;
            for (uint32_t u = 0; u < units; u++)
                if (unit[u] > desc->zero_point)
                    sum += from[u] * matrix[u * below + h];
            to[h] = (int16_t)(sum >> cam->uppers[n].shift);
        }
        matrix += units * below;
        int16_t *next = from;
        from = to;
        to = next;
    }
    return from;
}

static inline uint32_t row_name(const drip_cam_t *cam, const int16_t *row)
{
#ifdef DRIP_DSP
    (void)cam;
    return (uint32_t)(uintptr_t)row;
#else
    return (uint32_t)(row - cam->table);
#endif
}

static inline const int16_t *row_at(const drip_cam_t *cam, uint32_t name)
{
#ifdef DRIP_DSP
    (void)cam;
    return (const int16_t *)(uintptr_t)name;
#else
    return cam->table + name;
#endif
}

#ifdef DRIP_DSP

/* Low halfwords of two words, and high ones. */
static inline uint32_t low_halves(uint32_t a, uint32_t b)
{
    uint32_t pair;
    __asm("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
}

static inline uint32_t high_halves(uint32_t a, uint32_t b)
{
    uint32_t pair;
    __asm("pkhtb %0, %2, %1, asr #16" : "=r"(pair) : "r"(a), "r"(b));
    return pair;
}

/* Weights of four units where they are active, 0 of any other: two pairs. */
static inline void four_weights(const int8_t *unit, uint32_t zeros, const int8_t *dense,
                                uint32_t pair[2])
{
    uint32_t four = drip_dsp_word(dense), idle;
    __asm("ssub8 %1, %2, %3\n\t" /* says which are not above zero */
          "sel %0, %4, %0"
          : "+r"(four), "=&r"(idle)
          : "r"(zeros), "r"(drip_dsp_word(unit)), "r"(0)
          : "cc");
    const uint32_t even = drip_dsp_even(four), odd = drip_dsp_odd(four);
    pair[0] = low_halves(even, odd);
    pair[1] = high_halves(even, odd);
}

#endif

/* Weight of an active unit, 0 of any other. */
static inline uint32_t weight_of(int32_t value, int32_t zero, const int8_t *dense,
                                 const int16_t *handed, uint32_t h)
{
    if (value <= zero)
        return 0;
    return (uint32_t)(handed != NULL ? handed[h] : dense[h]) & 0xFFFFu;
}

/* Lists the pairs with an active unit that matters to class c. Returns the end. */
static drip_cam_units_t *collect_units(const drip_cam_t *cam, int c, drip_cam_units_t *units)
{
    const drip_blob_tensor_t *desc = NULL;
    const int8_t *unit = drip_nn_tensor(cam->nn, cam->head->hidden_tensor, &desc);
    const uint32_t hidden = cam->head->hidden, step = 2u * cam->head->channels;
    const int16_t *handed = cam->head->uppers > 0 ? pass_down(cam, c, units) : NULL;
    const int8_t *dense = handed != NULL ? NULL : cam->dense + (uint32_t)c * hidden;
    const int16_t *row = cam->table;
    const int32_t zero = desc->zero_point;
    uint32_t h = 0;
#ifdef DRIP_DSP
    const uint32_t zeros = ((uint32_t)zero & 0xFFu) * 0x01010101U;
    for (; dense != NULL && h + 4 <= hidden; h += 4) {
        uint32_t pair[2];
        four_weights(unit + h, zeros, dense + h, pair);
        for (uint32_t i = 0; i < 2; i++, row += step) {
            units->row = row_name(cam, row);
            units->dense = pair[i];
            units += pair[i] != 0;
        }
    }
#endif
    for (; h < hidden; h += 2, row += step) {
        uint32_t both = weight_of(unit[h], zero, dense, handed, h);
        if (h + 1 < hidden)
            both |= weight_of(unit[h + 1], zero, dense, handed, h + 1) << 16;
        units->row = row_name(cam, row);
        units->dense = both;
        units += both != 0;
    }
    units->row = 0;
    return units;
}

/* Weight of channel k before the shift. */
static int32_t sum_units(const drip_cam_t *cam, const drip_cam_units_t *units,
                         const drip_cam_units_t *end, uint32_t k)
{
    int32_t sum = 0;
    for (; units != end; units++) {
        const int16_t *entry = row_at(cam, units->row) + 2 * k;
        sum += entry[0] * (int16_t)units->dense + entry[1] * (int16_t)(units->dense >> 16);
    }
    return sum;
}

#ifndef DRIP_DSP

/* As sum_units, of four channels. */
static void sum_four(const drip_cam_t *cam, const drip_cam_units_t *units,
                     const drip_cam_units_t *end, uint32_t k, int32_t sums[4])
{
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (; units != end; units++) {
        const int32_t low = (int16_t)units->dense, high = (int16_t)(units->dense >> 16);
        const int16_t *entry = row_at(cam, units->row) + 2 * k;
        s0 += entry[0] * low + entry[1] * high;
        s1 += entry[2] * low + entry[3] * high;
        s2 += entry[4] * low + entry[5] * high;
        s3 += entry[6] * low + entry[7] * high;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

#endif

static void put(int16_t *weight, int32_t value, int minus)
{
    *weight = (int16_t)(minus ? *weight - value : value);
}

#ifdef DRIP_DSP

/* Where channel i lies. */
static inline uint32_t place(uint32_t i)
{
    return (i & ~3u) + (i & 1u) * 2u + (i & 2u) / 2u;
}

/* Channels 0 and 2, then 1 and 3 of a four. */
static inline void put_four(int16_t *weight, uint32_t even, uint32_t odd, int minus)
{
    if (minus) {
        const uint32_t old_even = drip_dsp_word(weight), old_odd = drip_dsp_word(weight + 2);
        __asm("ssub16 %0, %1, %0" : "+r"(even) : "r"(old_even) : "cc");
        __asm("ssub16 %0, %1, %0" : "+r"(odd) : "r"(old_odd) : "cc");
    }
    memcpy(weight, &even, 4);
    memcpy(weight + 2, &odd, 4);
}

static void direct_four(int16_t *weight, const int16_t *row, int minus)
{
    const uint32_t w01 = drip_dsp_word(row), w23 = drip_dsp_word(row + 2);
    put_four(weight, low_halves(w01, w23), high_halves(w01, w23), minus);
}

#endif

static void set_direct(const drip_cam_t *cam, int c, int16_t *weights, int minus)
{
    const uint32_t channels = cam->head->channels;
    const int16_t *row = cam->table + (uint32_t)c * channels;
    uint32_t k = 0;
#ifdef DRIP_DSP
    for (; k + 4 <= channels; k += 4)
        direct_four(weights + k, row + k, minus);
#endif
    for (; k < channels; k++)
        put(weights + k, row[k], minus);
}

static void set_hidden(const drip_cam_t *cam, int c, drip_cam_units_t *units, int minus)
{
    const uint32_t channels = cam->head->channels, shift = cam->head->shift;
    int16_t *weights = weights_of(cam, units);
    const drip_cam_units_t *end = collect_units(cam, c, units);
    uint32_t k = 0;
    if (units == end) {
        if (!minus)
            memset(weights, 0, channels * sizeof *weights);
        return;
    }
#ifdef DRIP_DSP
    if (channels >= 8) {
        drip_cam_dsp_weigh(units, weights, channels / 8, shift, minus);
        k = channels & ~7u;
    }
    /* The rows of the units have moved on to channel k. */
    for (uint32_t i = 0; k + i < channels; i++)
        put(weights + k + (k + (i | 3u) < channels ? place(i) : i),
            sum_units(cam, units, end, i) >> shift, minus);
#else
    for (; k + 4 <= channels; k += 4) {
        int32_t sums[4];
        sum_four(cam, units, end, k, sums);
        for (uint32_t i = 0; i < 4; i++)
            put(weights + k + i, sums[i] >> shift, minus);
    }
    for (; k < channels; k++)
        put(weights + k, sum_units(cam, units, end, k) >> shift, minus);
#endif
}

static void set_class(const drip_cam_t *cam, int c, void *scratch, int minus)
{
    if (cam_hidden(cam) == 0)
        set_direct(cam, c, weights_of(cam, scratch), minus);
    else
        set_hidden(cam, c, scratch, minus);
}

void drip_cam_begin(const drip_cam_t *cam, int class_index, void *scratch)
{
    set_class(cam, class_index, scratch, 0);
}

void drip_cam_subtract(const drip_cam_t *cam, int class_index, void *scratch)
{
    set_class(cam, class_index, scratch, 1);
}

/* Dot product of a position. It wraps on the way; its end is known to fit. */
static uint32_t dot(const int16_t *weights, const int8_t *x, uint32_t channels)
{
    const int8_t *const end = x + channels, *const fours = x + (channels & ~3u);
    uint32_t sum = 0;
    for (; x != fours; x += 4, weights += 4) {
#ifdef DRIP_DSP
        const uint32_t word = drip_dsp_word(x);
        sum = (uint32_t)drip_dsp_smlad(drip_dsp_even(word), drip_dsp_word(weights), (int32_t)sum);
        sum =
            (uint32_t)drip_dsp_smlad(drip_dsp_odd(word), drip_dsp_word(weights + 2), (int32_t)sum);
#else
        sum += (uint32_t)(weights[0] * x[0]) + (uint32_t)(weights[1] * x[1]);
        sum += (uint32_t)(weights[2] * x[2]) + (uint32_t)(weights[3] * x[3]);
#endif
    }
    while (x != end)
        sum += (uint32_t)(*weights++ * *x++);
    return sum;
}

static int32_t sum_weights(const int16_t *weights, uint32_t channels)
{
    int32_t sum = 0;
    uint32_t k = 0;
#ifdef DRIP_DSP
    for (; k + 4 <= channels; k += 4) {
        sum = drip_dsp_smlad(drip_dsp_word(weights + k), 0x00010001U, sum);
        sum = drip_dsp_smlad(drip_dsp_word(weights + k + 2), 0x00010001U, sum);
    }
#endif
    for (; k < channels; k++)
        sum += weights[k];
    return sum;
}

int32_t drip_cam_total(const drip_cam_t *cam, void *scratch, int32_t *map)
{
    return drip_cam_total_peak(cam, scratch, map, NULL);
}

int32_t drip_cam_total_peak(const drip_cam_t *cam, void *scratch, int32_t *map, int32_t *peak)
{
    const uint32_t channels = cam->head->channels;
    const uint32_t pixels = cam->head->pixels;
    const int16_t *weights = weights_of(cam, scratch);
    const int8_t *x = drip_nn_tensor(cam->nn, cam->nn->header.features_tensor, NULL);
    const uint32_t start =
        0u - (uint32_t)sum_weights(weights, channels) * (uint32_t)cam->zero_point;
    uint32_t total = 0, p = 0;
#ifdef DRIP_DSP
    if (map == NULL && peak == NULL && pixels >= 2 && (channels & 3u) == 0) {
        p = pixels & ~1u;
        total = drip_cam_dsp_total(weights, x, channels, pixels / 2, start);
        x += p * channels;
    }
#endif
    for (; p < pixels; p++, x += channels) {
        const int32_t value = (int32_t)(start + dot(weights, x, channels));
        if (map != NULL)
            *map++ = value;
        if (peak != NULL && value > *peak)
            *peak = value;
        total += (uint32_t)(value & ~(value >> 31)); /* ReLU */
    }
    return (int32_t)total;
}

int drip_cam_sum(const drip_cam_t *cam, int class_index, int minus, void *scratch, int32_t *map,
                 int32_t *sum)
{
    const drip_blob_cam_t *head = cam->head;
    if (class_index < 0 || class_index >= head->classes || minus >= head->classes ||
        drip_nn_tensor(cam->nn, cam->nn->header.features_tensor, NULL) == NULL)
        return DRIP_ERR_ARGUMENT;
    drip_cam_begin(cam, class_index, scratch);
    if (minus >= 0)
        drip_cam_subtract(cam, minus, scratch);
    *sum = drip_cam_total(cam, scratch, map);
    return DRIP_ERR_OK;
}
