/* Start-up, text output and the instruction counter of the bench image on RV32 (QEMU's machine `virt`). */
#include "board.h"

#define UART (*(volatile uint8_t *)0x10000000)  /* 16550 */
#define TEST (*(volatile uint32_t *)0x00100000) /* ends the emulation */

enum { TEST_PASS = 0x5555, TEST_FAIL = 0x13333 };

extern uint32_t bss_start[], bss_end[];

int main(void);

void board_exit(int ok)
{
    TEST = ok ? TEST_PASS : TEST_FAIL;
    for (;;) {
    }
}

__attribute__((used, noreturn)) void start(void)
{
    for (volatile uint32_t *word = bss_start; word < bss_end; word++) {
        *word = 0;
    }
    board_exit(main() == 0);
}

__attribute__((used, noreturn)) void trapped(void)
{
    board_text("fault\n");
    board_exit(0);
}

__attribute__((naked, section(".start"), used)) void reset(void)
{
    __asm volatile("    .option arch, +zicsr\n"
                   "    la sp, stack_top\n"
                   "    la t0, trap\n"
                   "    csrw mtvec, t0\n"
                   "    j start\n"
                   "    .balign 4\n"
                   "trap: la sp, stack_top\n"
                   "    j trapped\n");
}

uint32_t board_count(void)
{
    uint32_t count;
    __asm volatile(".option push\n.option arch, +zicsr\ncsrr %0, minstret\n.option pop"
                   : "=r"(count));
    return count;
}

void board_text(const char *text)
{
    while (*text != 0) {
        UART = (uint8_t)*text++;
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
