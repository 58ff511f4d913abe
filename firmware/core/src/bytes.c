#include "drip/bytes.h"

/* The table of a half-byte is made on the stack: the core may hold no constant data. */
uint32_t drip_crc32(uint32_t crc, const void *data, uint32_t size)
{
    const uint8_t *bytes = data;
    uint32_t table[16];
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 4; bit++)
            value = (value >> 1) ^ (0xEDB88320u & (0u - (value & 1u)));
        table[i] = value;
    }
    crc = ~crc;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}

/* Finaliser of MurmurHash3: neighbouring seeds must not give neighbouring sequences. */
void drip_rng_seed(drip_rng_t *rng, uint32_t seed)
{
    uint32_t x = seed + 0x9E3779B9u;
    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    x ^= x >> 16;
    rng->state = x != 0 ? x : 0x6D2B79F5u;
}

uint32_t drip_rng_next(drip_rng_t *rng)
{
    uint32_t x = rng->state;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    rng->state = x;
    return x;
}

void drip_rng_fill(drip_rng_t *rng, void *out, uint32_t size)
{
    uint8_t *bytes = out;
    uint32_t word = 0;
    for (uint32_t i = 0; i < size; i++) {
        word = (i & 3u) == 0 ? drip_rng_next(rng) : word >> 8;
        bytes[i] = (uint8_t)word;
    }
}
