#include "board.h"
#include "stm32f4.h"

/* In looks at a register, at least four cycles each: HSE may take 100 ms, the PLL 0.3 ms. */
enum { SPINS_OSCILLATOR = 400000, SPINS_PLL = 20000 };
enum { SYSTEM_CLOCK_MASK = 3, SYSTEM_CLOCK_SHIFT = 2, SYSTEM_CLOCK_PLL = 2 };

static struct {
    clock_source_t source;
    uint32_t cycles_per_ms;
    volatile uint32_t low; /* milliseconds */
    volatile uint32_t high;
    uint32_t stall_us;
    uint32_t stall_ms;
} now;

int clock_wait(volatile uint32_t *reg, uint32_t mask, uint32_t want, uint32_t spins)
{
    while ((*reg & mask) != want) {
        if (spins-- == 0) {
            return 0;
        }
    }
    return 1;
}

static int start_hse(void)
{
    rcc_regs_t *rcc = RCC_REGS;

    if (BOARD_HSE_BYPASS) {
        rcc->CR |= RCC_CR_HSEBYP;
    }
    rcc->CR |= RCC_CR_HSEON;
    if (clock_wait(&rcc->CR, RCC_CR_HSERDY, RCC_CR_HSERDY, SPINS_OSCILLATOR)) {
        return 1;
    }
    rcc->CR &= ~(uint32_t)(RCC_CR_HSEON | RCC_CR_HSEBYP);
    return 0;
}

/* 168 MHz from 336 MHz; 48 MHz for the USB. Returns 0 when the PLL does not lock. */
static int start_pll(int use_hse)
{
    rcc_regs_t *rcc = RCC_REGS;
    uint32_t divider = (use_hse ? BOARD_HSE_HZ : BOARD_HSI_HZ) / 1000000;

    rcc->CR &= ~(uint32_t)RCC_CR_PLLON;
    rcc->PLLCFGR = divider | 336U << 6 | 0U << 16 | (use_hse ? 1U << 22 : 0U) | 7U << 24 | 2U << 28;
    rcc->CR |= RCC_CR_PLLON;
    if (!clock_wait(&rcc->CR, RCC_CR_PLLRDY, RCC_CR_PLLRDY, SPINS_PLL)) {
        return 0;
    }
    FLASH_REGS->ACR = 5U | FLASH_ACR_PRFTEN | FLASH_ACR_ICEN | FLASH_ACR_DCEN;
    rcc->CFGR = (rcc->CFGR & ~0xFCF3U) | 5U << 10 | 4U << 13; /* APB1 = /4, APB2 = /2 */
    rcc->CFGR |= SYSTEM_CLOCK_PLL;
    return clock_wait(&rcc->CFGR, SYSTEM_CLOCK_MASK << SYSTEM_CLOCK_SHIFT,
                      SYSTEM_CLOCK_PLL << SYSTEM_CLOCK_SHIFT, SPINS_PLL);
}

/* Back to the oscillator that runs after reset. */
static void stay_on_hsi(void)
{
    rcc_regs_t *rcc = RCC_REGS;

    rcc->CFGR &= ~0xFCF3U;
    rcc->CR &= ~(uint32_t)RCC_CR_PLLON;
}

clock_source_t clock_start(void)
{
    systick_regs_t *tick = SYSTICK_REGS;
    int hse;

    RCC_REGS->APB1ENR |= RCC_APB1_PWR | RCC_APB1_TIM2;
    PWR_CR |= 3U << 14; /* the voltage for 168 MHz */
    hse = start_hse();
    if (start_pll(hse)) {
        now.source = hse ? CLOCK_HSE_PLL : CLOCK_HSI_PLL;
        now.cycles_per_ms = BOARD_SYSTEM_HZ / 1000;
    } else {
        stay_on_hsi();
        now.source = CLOCK_HSI;
        now.cycles_per_ms = BOARD_HSI_HZ / 1000;
    }
    SCB_REGS->SHPR[2] |= 0xF0U << 24; /* the UART goes first: it has a deadline */
    tick->LOAD = now.cycles_per_ms - 1;
    tick->VAL = 0;
    tick->CTRL = SYSTICK_ENABLE | SYSTICK_INTERRUPT | SYSTICK_CPU_CLOCK;
    /* Counts microseconds, in hardware, while flash stalls the processor. APB1's timers run at twice its rate. */
    TIM2_REGS->PSC = (now.source == CLOCK_HSI ? BOARD_HSI_HZ : BOARD_SYSTEM_HZ / 2) / 1000000 - 1;
    TIM2_REGS->ARR = 0xFFFFFFFFU;
    TIM2_REGS->EGR = 1;
    TIM2_REGS->CR1 = 1;
    return now.source;
}

clock_source_t clock_source(void)
{
    return now.source;
}

uint32_t clock_apb1_hz(void)
{
    return now.source == CLOCK_HSI ? BOARD_HSI_HZ : BOARD_SYSTEM_HZ / 4;
}

uint32_t clock_apb2_hz(void)
{
    return now.source == CLOCK_HSI ? BOARD_HSI_HZ : BOARD_SYSTEM_HZ / 2;
}

void clock_isr(void);
void clock_isr(void)
{
    uint32_t low = now.low + 1;

    if (low == 0) {
        now.high++;
    }
    now.low = low;
}

uint32_t clock_millis(void)
{
    return now.low;
}

/* Read again when a millisecond passed in between: no interrupt needs to be masked. */
uint64_t clock_micros(void)
{
    uint32_t high, low, left;

    do {
        high = now.high;
        low = now.low;
        left = SYSTICK_REGS->VAL;
    } while (low != now.low || high != now.high);
    return ((uint64_t)high << 32 | low) * 1000U +
           (now.cycles_per_ms - 1 - left) * 1000U / now.cycles_per_ms;
}

void clock_stall_begin(void)
{
    now.stall_us = TIM2_REGS->CNT;
    now.stall_ms = now.low;
}

void clock_stall_end(void)
{
    uint32_t passed_ms = (TIM2_REGS->CNT - now.stall_us) / 1000U;
    uint32_t counted_ms = now.low - now.stall_ms;

    /* One interrupt at most is pending, and one more may come between these lines: both are counted again
     * at the next stall's expense, never backwards. */
    if (passed_ms > counted_ms + 1) {
        uint32_t low = now.low + (passed_ms - counted_ms - 1);
        now.high += low < now.low;
        now.low = low;
    }
}
