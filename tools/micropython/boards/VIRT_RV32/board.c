#include "board.h"

#define UART_STATE ((volatile uint8_t *)0x10000005u)
#define TIMER      ((volatile uint32_t *)0x0200BFF8u) /* 64 bits, counts up */

enum { UART_RX_READY = 1 };

bool board_has_byte(void)
{
    return (*UART_STATE & UART_RX_READY) != 0;
}

uint64_t board_ticks(void)
{
    uint32_t high, low;

    do {
        high = TIMER[1];
        low = TIMER[0];
    } while (high != TIMER[1]);
    return (uint64_t)high << 32 | low;
}
