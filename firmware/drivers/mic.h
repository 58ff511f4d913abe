/* Windows of sound from a digital microphone on I2S (INMP441, ICS-43434, SPH0645): 24 bits in the high end of
 * 32-bit words.
 *
 * The samples lose their direct current, are scaled to int16 and collected into overlapping windows, as the
 * models with a log-mel front-end take them. Words come from the board's DMA; nothing waits. A window
 * that is not fetched before the next one is complete is lost, and counted. */
#ifndef DRIP_MIC_H
#define DRIP_MIC_H

#include "drip/frame.h"

enum {
    DRIP_MIC_DC_BITS = 10, /* the direct current is the mean over about 2^10 samples */
    DRIP_MIC_SETTLE = 4096 /* samples after the start that are dropped: the microphone wakes up */
};

typedef struct {
    uint32_t rate_hz; /* 4000 to 48000 */
    uint16_t window;  /* samples in a window, at most 32768 */
    uint16_t hop;     /* samples between the starts of two windows, 1 to `window` */
    uint16_t stream_id;
    uint8_t shift; /* of a word to the right, 8 to 16; 16 = the full scale of the microphone */
    uint8_t reserved;
} drip_mic_config_t;

/* A microphone. Members are private but for the counters. */
typedef struct {
    drip_mic_config_t config;
    int16_t *samples; /* lent: `window` + `hop` samples */
    uint32_t count;   /* in `samples` */
    uint32_t settle;  /* samples still to drop */
    uint64_t last_us; /* time of the last one */
    int32_t direct;   /* current, of words shifted by 8 */
    uint32_t windows; /* counters: windows handed over, */
    uint32_t missed;  /* not fetched in time, */
    uint32_t clipped; /* samples beyond int16 */
} drip_mic_t;

/* Prepares a microphone.
 *
 * Memory: `samples` stays valid, window + hop of them: a complete window waits until the next one is
 * complete, too. `config` is copied.
 * Returns DRIP_ERR_OK or _ARGUMENT. */
int drip_mic_init(drip_mic_t *mic, const drip_mic_config_t *config, int16_t *samples);

/* Takes `count` words; `time_us` is when the last of them was captured.
 *
 * Returns how many windows were lost for want of room: hand them to drip_device_lost. */
uint32_t drip_mic_put(drip_mic_t *mic, const int32_t *words, uint32_t count, uint64_t time_us);

/* Hands over a complete window, for sensor_poll of drip/port.h: little-endian int16, time of its first
 * sample. Returns 1 and the frame, or 0. */
int drip_mic_take(drip_mic_t *mic, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame);

/* For sensor_stream of drip/port.h. */
void drip_mic_stream(const drip_mic_t *mic, drip_stream_t *stream);

#endif
