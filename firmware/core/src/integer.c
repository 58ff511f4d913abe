#include "integer.h"

/* The mantissa is squared bit by bit: a table would be constant data, which the core may not hold. */
int32_t drip_log2(uint32_t x)
{
    int32_t log = 31 << DRIP_LOG2_BITS;
    while (x < 1u << 31) {
        x <<= 1;
        log -= 1 << DRIP_LOG2_BITS;
    }
    x >>= 16; /* 1.0 is 2^15 now */
    for (int32_t bit = 1 << (DRIP_LOG2_BITS - 1); bit != 0; bit >>= 1) {
        x = (x * x) >> 15;
        if (x >= 1u << 16) {
            x >>= 1;
            log += bit;
        }
    }
    return log;
}
