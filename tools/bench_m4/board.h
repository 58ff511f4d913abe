/* The little that the bench program needs of a board. */
#ifndef BENCH_BOARD_H
#define BENCH_BOARD_H

#include <stdint.h>

/* Instructions executed since reset, modulo 2^32 (QEMU with -icount shift=0). */
uint32_t board_count(void);

void board_text(const char *text);

/* Eight hexadecimal digits and a space. */
void board_hex(uint32_t value);

/* Ends the emulation. */
void board_exit(int ok) __attribute__((noreturn));

#endif
