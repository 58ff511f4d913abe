/* The four functions of the C library that the firmware uses: together a quarter of newlib's, and hardly slower,
 * because a Cortex-M4 loads and stores words at any address. */
#include <stddef.h>
#include <stdint.h>

/* Without it the compiler turns each of these loops into a call of the function it is in. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")

typedef uint32_t word_t __attribute__((aligned(1), may_alias));

void *memmove(void *to, const void *from, size_t size);
void *memcpy(void *restrict to, const void *restrict from, size_t size)
    __attribute__((alias("memmove")));
void *memset(void *to, int value, size_t size);
int memcmp(const void *left, const void *right, size_t size);

void *memmove(void *to, const void *from, size_t size)
{
    uint8_t *out = to;
    const uint8_t *in = from;

    if (out > in && out < in + size) {
        while (size > 0) {
            size--;
            out[size] = in[size];
        }
        return to;
    }
    /* All of a piece is read before it is written: the two may overlap. */
    for (; size >= 16; size -= 16, in += 16, out += 16) {
        const word_t *words = (const word_t *)in;
        uint32_t a = words[0], b = words[1], c = words[2], d = words[3];
        word_t *targets = (word_t *)out;
        targets[0] = a;
        targets[1] = b;
        targets[2] = c;
        targets[3] = d;
    }
    while (size-- > 0) {
        *out++ = *in++;
    }
    return to;
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *out = to;
    uint32_t word = (uint8_t)value * 0x01010101U;

    for (; size >= 4; size -= 4, out += 4) {
        *(word_t *)out = word;
    }
    while (size-- > 0) {
        *out++ = (uint8_t)value;
    }
    return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
    const uint8_t *a = left, *b = right;

    for (; size > 0; size--, a++, b++) {
        if (*a != *b) {
            return *a - *b;
        }
    }
    return 0;
}
