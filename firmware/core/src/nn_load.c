/* From a captured frame to the int8 input of a model, in pieces. */
#include "nn_internal.h"

#include "drip/bytes.h"

/* 0 leaves the front-end out of an image whose model has none: 2 KiB. */
#ifndef DRIP_FRONTEND
#define DRIP_FRONTEND 1
#endif

enum { PIECE = 1024 };

#if DRIP_FRONTEND

/* Where the front-end works: behind the input, or before it, wherever the arena has room. The arena is
 * free while the input is made. Returns the offset, or the size of the arena when there is no room. */
static uint32_t work_offset(const drip_nn_t *nn)
{
    const drip_blob_tensor_t *input = &nn->tensors[nn->header.input_tensor];
    const uint32_t behind = (input->arena_offset + input->size + 15u) & ~15u;
    const uint32_t bytes = drip_frontend_work_bytes(&nn->frontend);
    if (drip_range_ok(behind, bytes, nn->arena_bytes, DRIP_BLOB_ALIGN))
        return behind;
    return bytes <= input->arena_offset ? 0 : nn->arena_bytes;
}

int drip_nn_open_frontend(drip_nn_t *nn, uint32_t samples)
{
    const drip_blob_section_t *section = drip_nn_section(nn, DRIP_SECTION_FRONTEND, 0);
    drip_frontend_t *frontend = &nn->frontend;
    if (section == NULL)
        return DRIP_ERR_OK;
    if (nn->input.desc.dtype != DRIP_DTYPE_I16 ||
        drip_frontend_open(frontend, nn->blob + section->offset, section->size) != DRIP_ERR_OK ||
        samples < frontend->desc.window)
        return DRIP_ERR_CORRUPT;
    const uint32_t windows = 1 + (samples - frontend->desc.window) / frontend->desc.hop;
    nn->input.elements = windows * frontend->desc.mels;
    /* A window is quantised on its own, so it must begin with the first channel. */
    return frontend->desc.mels % nn->input.desc.channels != 0 || work_offset(nn) == nn->arena_bytes
               ? DRIP_ERR_CORRUPT
               : DRIP_ERR_OK;
}

/* One window of sound: features, then as if they were a frame of bytes. */
static void load_window(drip_nn_t *nn, const uint8_t *samples, uint32_t window)
{
    const uint32_t mels = nn->frontend.desc.mels;
    uint8_t features[DRIP_FRONTEND_MELS_MAX];
    int32_t *work = (int32_t *)(void *)(nn->arena + work_offset(nn));
    drip_frontend_window(&nn->frontend, samples, work, features);
    drip_frame_input_t input = nn->input;
    input.desc.dtype = DRIP_DTYPE_U8;
    input.desc.frame_bytes = mels;
    input.elements = mels;
    drip_frame_t row;
    memset(&row, 0, sizeof row);
    row.data = features;
    row.size = mels;
    drip_frame_quantise(&input, &row, 0, mels, drip_nn_input(nn) + window * mels);
}

/* One window of noise of some colour and loudness, at the end of the memory that the front-end works in. */
static void load_noise(drip_nn_t *nn, uint32_t seed, uint32_t window)
{
    const uint32_t count = nn->frontend.desc.window;
    uint8_t *samples =
        nn->arena + work_offset(nn) + drip_frontend_work_bytes(&nn->frontend) - 2 * count;
    drip_rng_t rng;
    drip_rng_seed(&rng, seed + window * DRIP_MAX_GOLDEN);
    const uint32_t kind = drip_rng_next(&rng);
    int32_t level = 0;
    for (uint32_t i = 0; i < count; i++) {
        level += ((int16_t)(uint16_t)drip_rng_next(&rng) - level) >> (kind & 3u);
        const uint32_t sample = (uint32_t)(level >> (kind >> 2 & 7u));
        samples[2 * i] = (uint8_t)sample;
        samples[2 * i + 1] = (uint8_t)(sample >> 8);
    }
    load_window(nn, samples, window);
}

#else

int drip_nn_open_frontend(drip_nn_t *nn, uint32_t samples)
{
    (void)samples;
    return drip_nn_section(nn, DRIP_SECTION_FRONTEND, 0) == NULL ? DRIP_ERR_OK
                                                                 : DRIP_ERR_UNSUPPORTED;
}

#endif

int drip_nn_load(drip_nn_t *nn, const drip_frame_t *frame, uint32_t done)
{
    const uint32_t left = nn->input.elements - done;
    if (nn->arena == NULL)
        return DRIP_ERR_STATE;
    if (frame->size != nn->input.desc.frame_bytes || done > nn->input.elements)
        return DRIP_ERR_RANGE;
    if (left == 0)
        return (int)done;
#if DRIP_FRONTEND
    if (nn->frontend.desc.fft != 0) {
        if (done % nn->frontend.desc.mels != 0)
            return DRIP_ERR_RANGE;
        const uint32_t window = done / nn->frontend.desc.mels;
        load_window(nn, frame->data + 2 * window * nn->frontend.desc.hop, window);
        return (int)(done + nn->frontend.desc.mels);
    }
#endif
    const uint32_t count = left < PIECE ? left : PIECE;
    drip_frame_quantise(&nn->input, frame, done, count, drip_nn_input(nn));
    return (int)(done + count);
}

int drip_nn_selftest_load(drip_nn_t *nn, uint32_t n, uint32_t done)
{
    int is_sound = 0;
    const drip_blob_golden_t *golden = drip_nn_golden(nn, &is_sound);
    drip_rng_t rng;
    if (nn->arena == NULL)
        return DRIP_ERR_STATE;
    if (golden == NULL || n >= golden->count)
        return DRIP_ERR_CORRUPT;
#if DRIP_FRONTEND
    if (is_sound) {
        const uint32_t mels = nn->frontend.desc.mels;
        if (done >= nn->input.elements || done % mels != 0)
            return DRIP_ERR_RANGE;
        load_noise(nn, golden->seed + n, done / mels);
        if (done + mels == nn->input.elements)
            drip_nn_begin(nn);
        return (int)(done + mels);
    }
#endif
    if (done != 0)
        return DRIP_ERR_RANGE;
    drip_rng_seed(&rng, golden->seed + n);
    drip_rng_fill(&rng, drip_nn_input(nn), nn->input.elements);
    drip_nn_begin(nn);
    return (int)nn->input.elements;
}
