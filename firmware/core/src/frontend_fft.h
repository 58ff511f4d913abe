/* A real FFT of 32-bit integers with 16-bit twiddles, for the front-end. */
#ifndef DRIP_FRONTEND_FFT_H
#define DRIP_FRONTEND_FFT_H

#include <stdint.h>

/* Transforms `points` real values, as half as many complex ones, in place. `sine`: quarter wave,
 * points / 4 + 1 values with 15 fraction bits. |values| below 2^29.
 * Returns how many times the result was halved. */
int32_t drip_fft_real(int32_t *values, uint32_t points, const int16_t *sine);

/* |X|^2 of a bin, 0..points / 2, of what drip_fft_real() left. */
uint64_t drip_fft_power(const int32_t *values, uint32_t points, const int16_t *sine, uint32_t bin);

#endif
