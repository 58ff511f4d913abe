/* What a board is, and the functions of this port. The settings of each board are in board_NAME.h; what has
 * an #ifndef can be replaced by a build flag, for example -DBOARD_SPI_MAX_HZ=5250000. */
#ifndef BOARD_H
#define BOARD_H

#include "drip/port.h"

/* A pin in one number: 16 * port + bit. */
enum { PORT_A, PORT_B, PORT_C, PORT_D, PORT_E };
#define PIN(port, bit) (16 * PORT_##port + (bit))

#if defined(BOARD_NUCLEO_F446RE)
#include "board_nucleo_f446re.h"
#elif defined(BOARD_DISCO_F407VG)
#include "board_disco_f407vg.h"
#elif defined(BOARD_BLACK_F407VE)
#include "board_black_f407ve.h"
#else
#error "name a board: -DBOARD_NUCLEO_F446RE, -DBOARD_DISCO_F407VG or -DBOARD_BLACK_F407VE"
#endif

/* Where the linker has put something. */
#define ADDRESS(symbol) ((uint32_t)(symbol))

/* Below this supply the chip is held in reset: 0 = 2.7 V, 1 = 2.4 V, 2 = 2.1 V, 3 = 1.7 V. Flash is
 * programmed in whole words, which needs 2.7 V. */
#ifndef BOARD_BROWN_OUT
#define BOARD_BROWN_OUT 0
#endif

/* Where frames come from: 0 = the link (FEED); 1 = also a motion sensor on I2C, in overlapping windows. */
#ifndef BOARD_SENSOR_IMU
#define BOARD_SENSOR_IMU 0
#endif
#ifndef BOARD_IMU_RATE_HZ
#define BOARD_IMU_RATE_HZ 50 /* samples of a window: as the model was trained */
#endif
#ifndef BOARD_IMU_WINDOW
#define BOARD_IMU_WINDOW 50
#endif
#ifndef BOARD_IMU_HOP
#define BOARD_IMU_HOP 25
#endif
#ifndef BOARD_I2C_HZ
#define BOARD_I2C_HZ 400000
#endif

/* The largest frame, and how many may wait for the card. */
#ifndef BOARD_CAPTURE_BYTES
#define BOARD_CAPTURE_BYTES (BOARD_SENSOR_IMU ? 2 * 1024 : 28 * 1024) /* 96 x 96 x 3 */
#endif
#ifndef BOARD_CAPTURE_FRAMES
#define BOARD_CAPTURE_FRAMES (BOARD_SENSOR_IMU ? 4 : 1)
#endif

/* Same on every board. */
enum {
    BOARD_SYSTEM_HZ = 168000000,
    BOARD_HSI_HZ = 16000000,
    BOARD_HSI_MAX_BAUD = 115200, /* the RC oscillator is 1 % off: no faster without a crystal */
};

/* ------------------------------------------------------------------ clock.c */

typedef enum { CLOCK_HSI, CLOCK_HSI_PLL, CLOCK_HSE_PLL } clock_source_t;

/* Starts the clock tree and the millisecond interrupt; never hangs. Returns what runs the processor. */
clock_source_t clock_start(void);
clock_source_t clock_source(void);
uint32_t clock_apb1_hz(void);
uint32_t clock_apb2_hz(void);
uint32_t clock_millis(void);
uint64_t clock_micros(void);
/* Around work that stalls the processor longer than a millisecond: the time base is put right after it. */
void clock_stall_begin(void);
void clock_stall_end(void);
/* Waits until the masked bits equal `want`. Returns 1, or 0 after `spins` looks. */
int clock_wait(volatile uint32_t *reg, uint32_t mask, uint32_t want, uint32_t spins);

/* ------------------------------------------------------------------ pins.c */

void pin_output(int pin, int high);
void pin_set(int pin, int high);
/* `open_drain`: for I2C, with the pull-up that the board has. */
void pin_alternate(int pin, int function, int pull_up, int open_drain);

/* ------------------------------------------------------------------ uart.c */

void uart_start(uint32_t baud);
int uart_read(void *context, uint8_t *data, uint32_t size);
int uart_write(void *context, const uint8_t *data, uint32_t size);
int uart_baud(void *context, uint32_t baud);
/* All bytes taken for sending have left. */
int uart_idle(void);
void uart_isr(void);

/* ------------------------------------------------------------------ spi.c */

void spi_start(void);
/* The functions of drip_sd_bus_t. */
void spi_clock(void *context, uint32_t hz);
void spi_select(void *context, int on);
void spi_exchange(void *context, const uint8_t *out, uint8_t *in, uint32_t size);

/* ------------------------------------------------------------------ i2c.c */

void i2c_start(void);
/* The functions of drip_imu_bus_t. */
int i2c_read(void *context, uint8_t address, uint8_t reg, uint8_t *data, uint32_t size);
int i2c_write(void *context, uint8_t address, uint8_t reg, uint8_t value);
int i2c_poll(void *context);
void i2c_event_isr(void);
void i2c_error_isr(void);

/* ------------------------------------------------------------------ flash.c */

void flash_attach(drip_port_t *port);
void flash_protect_supply(void);

/* ------------------------------------------------------------------ system.c */

/* Starts the watchdog and finds out why the processor started. Returns enum DRIP_BOOT_*. */
uint8_t system_start(void);
void system_reset(void *context) __attribute__((noreturn));
void system_watchdog(void *context);
void system_identity(uint8_t id[16]);
void system_sleep(void);
/* Fills in stack_free and fault*. */
void system_status(void *context, drip_status_t *status);
/* Reads a word that may not be there. Returns its value, or 0xFFFFFFFF where the bus answers with an error. */
uint32_t system_peek(uint32_t address);

#endif
