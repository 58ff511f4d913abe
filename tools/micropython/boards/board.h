/* What a board gives hal.c; BOARD_TICKS_PER_US is set in its mpconfigboard.mk. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stdint.h>

/* Since power-on. */
uint64_t board_ticks(void);

/* Whether the serial line has a byte. */
bool board_has_byte(void);

#endif
