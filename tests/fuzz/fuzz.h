/* What the fuzz targets share: checks, reading the input, memory that ends where it says. */
#ifndef DRIP_FUZZ_H
#define DRIP_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A broken promise of the core ends the run like a memory error does; assert may be compiled out. */
#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* The input, read from the front. Past its end everything is zero. */
typedef struct {
    const uint8_t *data;
    size_t left;
} fuzz_input_t;

static inline size_t fuzz_take(fuzz_input_t *input, void *out, size_t size)
{
    const size_t n = size < input->left ? size : input->left;

    memset(out, 0, size);
    if (n > 0) {
        memcpy(out, input->data, n);
    }
    input->data += n;
    input->left -= n;
    return n;
}

static inline uint8_t fuzz_u8(fuzz_input_t *input)
{
    uint8_t value;

    fuzz_take(input, &value, sizeof(value));
    return value;
}

static inline uint16_t fuzz_u16(fuzz_input_t *input)
{
    uint16_t value;

    fuzz_take(input, &value, sizeof(value));
    return value;
}

/* A heap block of exactly `size` bytes at a multiple of 16, so that the sanitizer sees every byte too
 * many. The caller frees it. */
static inline uint8_t *fuzz_block(size_t size, int fill)
{
    void *block = malloc(size > 0 ? size : 1);

    MUST(block != NULL && (uintptr_t)block % 16 == 0);
    memset(block, fill, size > 0 ? size : 1);
    return block;
}

#endif
