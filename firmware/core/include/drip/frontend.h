/* Part of stage 1, frame: log-mel features of 16-bit samples, for models that hear.
 *
 * A window of samples is weighted, transformed (FFT), its power summed in triangular bands, and the
 * logarithm of each band becomes one u8. Integers only, the same bytes on every target; the tables
 * come from the model blob (section FRONTEND), made on the host. */
#ifndef DRIP_FRONTEND_H
#define DRIP_FRONTEND_H

#include "drip/wire.h"

enum { DRIP_FRONTEND_FFT_MIN = 64, DRIP_FRONTEND_FFT_MAX = 2048, DRIP_FRONTEND_MELS_MAX = 64 };

/* An opened front-end. Points into the section, which must stay where it is. */
typedef struct {
    drip_blob_frontend_t desc;
    const int16_t *window;
    const int16_t *sine;
    const uint16_t *edges;
    const uint16_t *rise;
} drip_frontend_t;

/* Opens a section FRONTEND, 4-byte aligned; every table is checked.
 *
 * Memory: drip_frontend_t. Context: any.
 * Returns DRIP_ERR_OK, DRIP_ERR_SHORT, or DRIP_ERR_CORRUPT. */
int drip_frontend_open(drip_frontend_t *frontend, const void *section, uint32_t size);

/* Bytes of scratch that drip_frontend_window() needs: 4 per point of the FFT. */
uint32_t drip_frontend_work_bytes(const drip_frontend_t *frontend);

/* Features of one window.
 *
 * `samples`: desc.window little-endian i16, at any address, or the last bytes of `work`. `work`: as above,
 * 4-byte aligned, its content does not matter before and after. `out`: desc.mels bytes.
 * Context: owner. About 100 instructions per point of the FFT: a window of 1024 points is well
 * under the 5 ms of a step on a 100 MHz Cortex-M4. */
void drip_frontend_window(const drip_frontend_t *frontend, const uint8_t *samples, int32_t *work,
                          uint8_t *out);

#endif
