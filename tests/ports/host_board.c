/* What tools/bench_m4/board.h asks for, on a computer. */
#include "board.h"

#include <stdio.h>
#include <stdlib.h>

uint32_t board_count(void)
{
    return 0;
}

void board_text(const char *text)
{
    fputs(text, stdout);
}

void board_hex(uint32_t value)
{
    printf("%08x ", value);
}

void board_exit(int ok)
{
    exit(!ok);
}
