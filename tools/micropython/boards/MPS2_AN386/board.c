/* What boards have and the qemu port of MicroPython leaves alone: the floating point unit, a clock,
 * whether the serial line has a byte, and files that are mounted at start. */
#include <stdint.h>

#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/pyexec.h"

#define COPROCESSORS ((volatile uint32_t *)0xE000ED88u)
#define UART_STATE   ((volatile uint32_t *)0x40004004u)
#define TIMER        ((volatile uint32_t *)0x40000000u) /* control, value, reload */

enum { UART_RX_FULL = 2, TIMER_ON = 1, TICKS_PER_US = 25 };

void __real_uart_init(void);
void __wrap_uart_init(void);
void __real_mp_init(void);
void __wrap_mp_init(void);
int __real_pyexec_raw_repl(void);
int __wrap_pyexec_raw_repl(void);
int __real_pyexec_friendly_repl(void);
int __wrap_pyexec_friendly_repl(void);
uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted);

/* The first function that start-up calls. */
void __wrap_uart_init(void)
{
    *COPROCESSORS |= 0xFu << 20;
    __asm volatile("dsb\nisb");
    TIMER[2] = UINT32_MAX;
    TIMER[1] = UINT32_MAX;
    TIMER[0] = TIMER_ON;
    __real_uart_init();
}

/* Power-on and every soft reset begin with mp_init; the prompt comes next. */
static int is_booted;

void __wrap_mp_init(void)
{
    is_booted = 0;
    __real_mp_init();
}

static void boot(void)
{
    if (!is_booted) {
        is_booted = 1;
        pyexec_frozen_module("_boot.py", false);
    }
}

int __wrap_pyexec_raw_repl(void)
{
    boot();
    return __real_pyexec_raw_repl();
}

int __wrap_pyexec_friendly_repl(void)
{
    boot();
    return __real_pyexec_friendly_repl();
}

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted)
{
    uintptr_t ready = MP_STREAM_POLL_WR;

    if ((*UART_STATE & UART_RX_FULL) != 0) {
        ready |= MP_STREAM_POLL_RD;
    }
    return ready & wanted;
}

/* Ticks since power-on. The timer counts down and wraps after 171 s: it must be read more often. */
static uint64_t ticks(void)
{
    static uint64_t total;

    total += (uint32_t)(UINT32_MAX - TIMER[1] - (uint32_t)total);
    return total;
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
