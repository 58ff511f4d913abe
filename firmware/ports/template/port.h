/* The board's side of drip/port.h: copy this folder, then work through the FIXMEs. */
#ifndef BOARD_PORT_H
#define BOARD_PORT_H

#include "drip/port.h"

/* Starts clock, UART, card interface and watchdog, and fills in the port. */
void board_start(drip_port_t *port);

/* Sleeps until the next interrupt, a millisecond at most. */
void board_sleep(void);

/* Interrupts: call these from the board's handlers. They only move bytes. */
void board_on_uart_received(uint8_t byte);
/* Returns the next byte to send, or -1 when the transmit interrupt should be switched off. */
int board_on_uart_ready(void);
void board_on_millisecond(void);

#endif
