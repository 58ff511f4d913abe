/* An STM32F4 on the host: memory where the chip has its registers and its flash, and a call before every
 * access that the drivers make to it. */
#ifndef CHIP_BENCH_H
#define CHIP_BENCH_H

#include "drip/port.h"
#include "imu.h"

/* Watches addresses of the chip, and maps memory there unless it `is_mapped` by another module of this
 * process. Returns 0 when they are taken. */
int chip_map(uint32_t start, uint32_t bytes, int is_mapped);

/* `access` is called before every volatile access to what is mapped: a write takes effect after it. */
void chip_watch(void (*access)(uint32_t address, int is_write));

/* A new start: the drivers have their first values again. */
void chip_restart(void);

/* What the drivers need of the rest of the port. */
extern int chip_uart_idle;
extern uint32_t chip_watchdog_kicks;
extern drip_imu_bus_t chip_imu_bus;

/* The drivers: board.h. */
int clock_start(void);
int clock_source(void);
void clock_isr(void);
uint32_t clock_millis(void);
uint64_t clock_micros(void);
void flash_attach(drip_port_t *port);
void flash_protect_supply(void);
void i2c_start(void);
void i2c_event_isr(void);
void i2c_error_isr(void);
void uart_start(uint32_t baud);
int uart_read(void *context, uint8_t *data, uint32_t size);
int uart_write(void *context, const uint8_t *data, uint32_t size);
int uart_baud(void *context, uint32_t baud);
int uart_line_idle(void);
void uart_isr(void);

#endif
