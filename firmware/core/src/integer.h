/* Arithmetic that score and policy share; not for other files. */
#ifndef DRIP_INTEGER_H
#define DRIP_INTEGER_H

#include <stdint.h>

enum { DRIP_LOG2_BITS = 12 };

/* log2 of 1..2^32-1, x 2^DRIP_LOG2_BITS, rounded down. */
int32_t drip_log2(uint32_t x);

#endif
