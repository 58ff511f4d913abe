/* Besides what hal.c needs: the floating point unit, and files that are mounted at start. */
#include "board.h"
#include "py/runtime.h"
#include "shared/runtime/pyexec.h"

#define COPROCESSORS ((volatile uint32_t *)0xE000ED88u)
#define UART_STATE   ((volatile uint32_t *)0x40004004u)
#define TIMER        ((volatile uint32_t *)0x40000000u) /* control, value, reload */

enum { UART_RX_FULL = 2, TIMER_ON = 1 };

void __real_uart_init(void);
void __wrap_uart_init(void);
void __real_mp_init(void);
void __wrap_mp_init(void);
int __real_pyexec_raw_repl(void);
int __wrap_pyexec_raw_repl(void);
int __real_pyexec_friendly_repl(void);
int __wrap_pyexec_friendly_repl(void);

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

bool board_has_byte(void)
{
    return (*UART_STATE & UART_RX_FULL) != 0;
}

/* The timer counts down and wraps after 171 s: it must be read more often. */
uint64_t board_ticks(void)
{
    static uint64_t total;

    total += (uint32_t)(UINT32_MAX - TIMER[1] - (uint32_t)total);
    return total;
}
