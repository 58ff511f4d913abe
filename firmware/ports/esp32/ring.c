#include "ring.h"

#include <string.h>

/* Bytes up to the end of the array; the rest lies at its start. */
static uint32_t straight(uint32_t at, uint32_t size)
{
    uint32_t left = RING_BYTES - at % RING_BYTES;

    return size < left ? size : left;
}

uint32_t ring_put(ring_t *ring, const uint8_t *data, uint32_t size)
{
    uint32_t end = atomic_load_explicit(&ring->end, memory_order_relaxed);
    uint32_t room = RING_BYTES - (end - atomic_load_explicit(&ring->begin, memory_order_acquire));
    uint32_t first;

    if (size > room) {
        size = room;
    }
    first = straight(end, size);
    memcpy(ring->bytes + end % RING_BYTES, data, first);
    memcpy(ring->bytes, data + first, size - first);
    atomic_store_explicit(&ring->end, end + size, memory_order_release);
    return size;
}

uint32_t ring_look(ring_t *ring, uint8_t *data, uint32_t size)
{
    uint32_t begin = atomic_load_explicit(&ring->begin, memory_order_relaxed);
    uint32_t held = atomic_load_explicit(&ring->end, memory_order_acquire) - begin;
    uint32_t first;

    if (size > held) {
        size = held;
    }
    first = straight(begin, size);
    memcpy(data, ring->bytes + begin % RING_BYTES, first);
    memcpy(data + first, ring->bytes, size - first);
    return size;
}

void ring_drop(ring_t *ring, uint32_t size)
{
    uint32_t begin = atomic_load_explicit(&ring->begin, memory_order_relaxed);

    atomic_store_explicit(&ring->begin, begin + size, memory_order_release);
}

int ring_empty(ring_t *ring)
{
    return atomic_load_explicit(&ring->begin, memory_order_acquire) ==
           atomic_load_explicit(&ring->end, memory_order_acquire);
}
