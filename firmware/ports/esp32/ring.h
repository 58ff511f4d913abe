/* A ring of bytes between two tasks: one puts, the other takes, no lock. Portable C11. */
#ifndef ESP32_RING_H
#define ESP32_RING_H

#include <stdatomic.h>
#include <stdint.h>

enum { RING_BYTES = 4096 /* a power of two */ };

/* All zeros is an empty ring. */
typedef struct {
    atomic_uint begin; /* counts for ever; only the taking side writes it */
    atomic_uint end;   /* only the putting side writes it */
    uint8_t bytes[RING_BYTES];
} ring_t;

/* Puts as much as fits. Returns how many bytes. */
uint32_t ring_put(ring_t *ring, const uint8_t *data, uint32_t size);

/* Copies the oldest bytes and leaves them. Returns how many. */
uint32_t ring_look(ring_t *ring, uint8_t *data, uint32_t size);

/* Forgets the oldest bytes, no more than ring_look has shown. */
void ring_drop(ring_t *ring, uint32_t size);

/* Returns 1 when it holds nothing. */
int ring_empty(ring_t *ring);

#endif
