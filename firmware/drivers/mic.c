#include "mic.h"

#include <string.h>

enum {
    LOWEST_HZ = 4000,
    HIGHEST_HZ = 48000,
    LONGEST = DRIP_MAX_FRAME_BYTES / 2,
    WORD_SHIFT = 8, /* the low bits of a word are empty */
    SHIFT_MOST = 16,
    SAMPLE_MOST = 32767,
};

int drip_mic_init(drip_mic_t *mic, const drip_mic_config_t *config, int16_t *samples)
{
    memset(mic, 0, sizeof(*mic));
    if (samples == NULL || config->rate_hz < LOWEST_HZ || config->rate_hz > HIGHEST_HZ ||
        config->window == 0 || config->window > LONGEST || config->hop == 0 ||
        config->hop > config->window || config->shift < WORD_SHIFT || config->shift > SHIFT_MOST) {
        return DRIP_ERR_ARGUMENT;
    }
    mic->config = *config;
    mic->samples = samples;
    mic->settle = DRIP_MIC_SETTLE;
    return DRIP_ERR_OK;
}

/* Makes room for the samples of one hop. */
static void slide(drip_mic_t *mic)
{
    mic->count -= mic->config.hop;
    memmove(mic->samples, mic->samples + mic->config.hop, mic->count * sizeof(mic->samples[0]));
}

/* Words have 24 bits, so neither the mean with its fraction bits nor the difference overflows. */
static int16_t convert(drip_mic_t *mic, int32_t word)
{
    int32_t value = word >> WORD_SHIFT;
    int32_t rest = value - (mic->direct >> 6);
    uint32_t shift = (uint32_t)mic->config.shift - WORD_SHIFT;
    int32_t sample;

    mic->direct += (rest * 64) >> DRIP_MIC_DC_BITS;
    sample = shift == 0 ? rest : (rest + (1 << (shift - 1))) >> shift;
    if (sample > SAMPLE_MOST || sample < -SAMPLE_MOST - 1) {
        mic->clipped++;
        sample = sample < 0 ? -SAMPLE_MOST - 1 : SAMPLE_MOST;
    }
    return (int16_t)sample;
}

uint32_t drip_mic_put(drip_mic_t *mic, const int32_t *words, uint32_t count, uint64_t time_us)
{
    const uint32_t room = (uint32_t)mic->config.window + mic->config.hop;
    uint32_t lost = 0;
    uint32_t i;

    for (i = 0; i < count; i++) {
        int16_t sample = convert(mic, words[i]);

        if (mic->settle != 0) {
            mic->settle--;
            continue;
        }
        if (mic->count == room) {
            slide(mic);
            lost++;
        }
        mic->samples[mic->count++] = sample;
    }
    if (count != 0) {
        mic->last_us = time_us;
    }
    mic->missed += lost;
    return lost;
}

int drip_mic_take(drip_mic_t *mic, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    const uint32_t window = mic->config.window;
    uint32_t after, i;

    if (mic->count < window || buffer_bytes < 2 * window) {
        return 0;
    }
    for (i = 0; i < window; i++) {
        uint16_t value = (uint16_t)mic->samples[i];

        buffer[2 * i] = (uint8_t)value;
        buffer[2 * i + 1] = (uint8_t)(value >> 8);
    }
    after = mic->count; /* samples since the first of the window, at most 65536 */
    memset(frame, 0, sizeof(*frame));
    frame->data = buffer;
    frame->size = 2 * window;
    /* Milliseconds first: a division of 64 bits would need the compiler's library. */
    frame->time_us = mic->last_us - (uint64_t)(after * 1000u / mic->config.rate_hz) * 1000u;
    frame->stream_id = mic->config.stream_id;
    mic->windows++;
    slide(mic);
    return 1;
}

void drip_mic_stream(const drip_mic_t *mic, drip_stream_t *stream)
{
    memset(stream, 0, sizeof(*stream));
    stream->id = mic->config.stream_id;
    stream->dtype = DRIP_DTYPE_I16;
    stream->rank = 2; /* samples, one channel: as `drip data import --raw` has them */
    stream->shape[0] = mic->config.window;
    stream->shape[1] = stream->shape[2] = stream->shape[3] = 1;
    stream->rate_mhz = 1000u * mic->config.rate_hz / mic->config.hop;
    stream->scale = 0x38000000; /* 2^-15: full scale is 1 */
}
