/* What boards have and the qemu port of MicroPython leaves alone: a clock, and whether the serial line has a byte. */
#include "board.h"
#include "py/mphal.h"
#include "py/stream.h"

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted);

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted)
{
    uintptr_t ready = MP_STREAM_POLL_WR;

    if (board_has_byte()) {
        ready |= MP_STREAM_POLL_RD;
    }
    return ready & wanted;
}

mp_uint_t mp_hal_ticks_cpu(void)
{
    return (mp_uint_t)board_ticks();
}

mp_uint_t mp_hal_ticks_us(void)
{
    return (mp_uint_t)(board_ticks() / BOARD_TICKS_PER_US);
}

mp_uint_t mp_hal_ticks_ms(void)
{
    return (mp_uint_t)(board_ticks() / (1000 * BOARD_TICKS_PER_US));
}

uint64_t mp_hal_time_ns(void)
{
    return board_ticks() * (1000 / BOARD_TICKS_PER_US);
}

void mp_hal_delay_us(mp_uint_t us)
{
    uint64_t end = board_ticks() + (uint64_t)us * BOARD_TICKS_PER_US;

    while (board_ticks() < end) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms)
{
    mp_hal_delay_us(1000 * ms);
}
