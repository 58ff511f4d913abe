/* The four functions of the C library that the core calls; a native module brings its own.
 *
 * The compiler must not make a call to memcpy out of the loops below: the Makefile compiles this file with
 * -fno-builtin -fno-tree-loop-distribute-patterns. */
#include <stddef.h>
#include <stdint.h>

/* Words may alias anything here. */
typedef uint32_t __attribute__((may_alias)) word_t;

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *d = to;
    const uint8_t *s = from;

    if ((((uintptr_t)d | (uintptr_t)s) & 3u) == 0) {
        for (; size >= 4; size -= 4, d += 4, s += 4) {
            *(word_t *)(void *)d = *(const word_t *)(const void *)s;
        }
    }
    for (; size > 0; size--) {
        *d++ = *s++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    uint8_t *d = to;
    const uint8_t *s = from;

    if ((uintptr_t)d - (uintptr_t)s >= size) {
        return memcpy(to, from, size);
    }
    while (size > 0) {
        size--;
        d[size] = s[size];
    }
    return to;
}

void *memset(void *to, int value, size_t size)
{
    uint8_t *d = to;
    uint32_t word = (uint8_t)value * 0x01010101u;

    for (; size > 0 && ((uintptr_t)d & 3u) != 0; size--) {
        *d++ = (uint8_t)value;
    }
    for (; size >= 4; size -= 4, d += 4) {
        *(word_t *)(void *)d = word;
    }
    for (; size > 0; size--) {
        *d++ = (uint8_t)value;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a;
    const uint8_t *y = b;

    for (; size > 0; size--, x++, y++) {
        if (*x != *y) {
            return *x < *y ? -1 : 1;
        }
    }
    return 0;
}
