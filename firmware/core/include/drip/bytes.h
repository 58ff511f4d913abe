/* Checksum and pseudo-random numbers that several stages share. */
#ifndef DRIP_BYTES_H
#define DRIP_BYTES_H

#include <stdint.h>

/* CRC-32 (IEEE 802.3, reflected, as zlib's): pass 0 to start, the previous result to go on.
 *
 * Memory: 64 bytes of stack. Context: any.
 * Returns the checksum over all bytes so far. */
uint32_t drip_crc32(uint32_t crc, const void *data, uint32_t size);

/* Deterministic pseudo-random generator (xorshift32), the same on every target.
 *
 * Range: a seed of 0 is replaced by a fixed non-zero one. */
typedef struct {
    uint32_t state;
} drip_rng_t;

/* Starts the sequence of a seed (mixed, so that neighbouring seeds differ). */
void drip_rng_seed(drip_rng_t *rng, uint32_t seed);

/* Returns the next 32 bits. */
uint32_t drip_rng_next(drip_rng_t *rng);

/* Fills a buffer with pseudo-random bytes: four per draw, least significant first. */
void drip_rng_fill(drip_rng_t *rng, void *out, uint32_t size);

#endif
