/* What boards have and the qemu port of MicroPython leaves alone: a clock, and whether the serial line has a byte. */
#include <stdint.h>

#include "py/mphal.h"
#include "py/stream.h"

#define UART_STATE ((volatile uint8_t *)0x10000005u)
#define TIMER      ((volatile uint32_t *)0x0200BFF8u) /* 64 bits, counts up */

enum { UART_RX_READY = 1, TICKS_PER_US = 10 };

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted);

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted)
{
    uintptr_t ready = MP_STREAM_POLL_WR;

    if ((*UART_STATE & UART_RX_READY) != 0) {
        ready |= MP_STREAM_POLL_RD;
    }
    return ready & wanted;
}

static uint64_t ticks(void)
{
    uint32_t high, low;

    do {
        high = TIMER[1];
        low = TIMER[0];
    } while (high != TIMER[1]);
    return (uint64_t)high << 32 | low;
}

mp_uint_t mp_hal_ticks_cpu(void)
{
    return (mp_uint_t)ticks();
}

mp_uint_t mp_hal_ticks_us(void)
{
    return (mp_uint_t)(ticks() / TICKS_PER_US);
}

mp_uint_t mp_hal_ticks_ms(void)
{
    return (mp_uint_t)(ticks() / (1000 * TICKS_PER_US));
}

uint64_t mp_hal_time_ns(void)
{
    return ticks() * (1000 / TICKS_PER_US);
}

void mp_hal_delay_us(mp_uint_t us)
{
    uint64_t end = ticks() + (uint64_t)us * TICKS_PER_US;

    while (ticks() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms)
{
    mp_hal_delay_us(1000 * ms);
}
