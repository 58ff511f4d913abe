/* Start-up, text output and the instruction counter of the bench image (STM32F405 in QEMU). */
#include "board.h"

#define REG(address) (*(volatile uint32_t *)(address))

enum { SEMIHOSTING_EXIT = 0x18, EXIT_OK = 0x20026, EXIT_ERROR = 0x20023 };

extern uint32_t stack_top[], bss_start[], bss_end[];

int main(void);

void board_exit(int ok)
{
    register uint32_t r0 __asm("r0") = SEMIHOSTING_EXIT;
    register uint32_t r1 __asm("r1") = ok ? EXIT_OK : EXIT_ERROR;
    __asm volatile("bkpt 0xab" : : "r"(r0), "r"(r1) : "memory");
    for (;;) {
    }
}

static void fault(void)
{
    board_text("fault\n");
    board_exit(0);
}

__attribute__((used)) void reset(void)
{
    REG(0xE000ED88) |= 0xFU << 20; /* CPACR: the FPU on, as firmware built for it expects */
    /* Volatile: not a call of memset, which the count of cycles takes for the engine's. */
    for (volatile uint32_t *word = bss_start; word < bss_end; word++) {
        *word = 0;
    }
    REG(0x40000028) = 0; /* TIM2: no prescaler, one tick per instruction under -icount shift=0 */
    REG(0x40000014) = 1;
    REG(0x40000000) = 1;
    board_exit(main() == 0);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, reset, fault, fault, fault, fault, fault,
};

uint32_t board_count(void)
{
    return REG(0x40000024);
}

void board_text(const char *text)
{
    while (*text != 0) {
        REG(0x40011004) = (uint8_t)*text++; /* USART1 */
    }
}

void board_hex(uint32_t value)
{
    char text[10];
    for (int digit = 0; digit < 8; digit++) {
        text[digit] = "0123456789abcdef"[(value >> (28 - 4 * digit)) & 15U];
    }
    text[8] = ' ';
    text[9] = 0;
    board_text(text);
}
