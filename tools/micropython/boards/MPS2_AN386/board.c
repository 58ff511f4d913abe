/* What the machine has and the qemu port of MicroPython leaves alone: the floating point unit, a clock,
 * and whether the serial line has a byte. */
#include <stdint.h>

#include "py/mphal.h"
#include "py/stream.h"

#define COPROCESSORS ((volatile uint32_t *)0xE000ED88u)
#define UART_STATE   ((volatile uint32_t *)0x40004004u)
#define TIMER        ((volatile uint32_t *)0x40000000u) /* control, value, reload */

enum { UART_RX_FULL = 2, TIMER_ON = 1, TICKS_PER_US = 25 };

void __real_uart_init(void);
void __wrap_uart_init(void);
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

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t wanted)
{
    uintptr_t ready = MP_STREAM_POLL_WR;

    if ((*UART_STATE & UART_RX_FULL) != 0) {
        ready |= MP_STREAM_POLL_RD;
    }
    return ready & wanted;
}

/* Ticks and microseconds since power-on. The timer counts down and wraps after 171 s: it must be read more
 * often. No 64-bit division: the port's linker script has no place for what libgcc brings along. */
static uint32_t ticks, rest, us, ms_rest, ms;

static void look(void)
{
    uint32_t now = UINT32_MAX - TIMER[1];

    rest += now - ticks;
    ticks = now;
    us += rest / TICKS_PER_US;
    ms_rest += rest / TICKS_PER_US;
    rest %= TICKS_PER_US;
    ms += ms_rest / 1000;
    ms_rest %= 1000;
}

mp_uint_t mp_hal_ticks_cpu(void)
{
    look();
    return ticks;
}

mp_uint_t mp_hal_ticks_us(void)
{
    look();
    return us;
}

mp_uint_t mp_hal_ticks_ms(void)
{
    look();
    return ms;
}

void mp_hal_delay_us(mp_uint_t wanted)
{
    mp_uint_t begin = mp_hal_ticks_us();

    while (mp_hal_ticks_us() - begin < wanted) {
    }
}

void mp_hal_delay_ms(mp_uint_t wanted)
{
    mp_hal_delay_us(1000 * wanted);
}
