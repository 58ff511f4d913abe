/* "Black" STM32F407VET6 board. Needs a USB-serial adapter for the link and an SD module on SPI: the slot on
 * the board is wired for SDIO, which this firmware does not drive. */
#define BOARD_NAME "black_f407ve"

/* Clock: 8 MHz crystal. */
#define BOARD_HSE_HZ     8000000
#define BOARD_HSE_BYPASS 0

/* Link: USART1 on PA9 (to the adapter's RX) and PA10 (to its TX). */
#define BOARD_UART    1
#define BOARD_UART_TX PIN(A, 9)
#define BOARD_UART_RX PIN(A, 10)
#ifndef BOARD_UART_MAX_BAUD
#define BOARD_UART_MAX_BAUD 921600
#endif

/* SD module: SPI1 on PB3, PB4, PB5, chip select PB7: all on the nRF24 header. The flash chip on the same bus
 * is kept deselected. */
#define BOARD_SPI_SCK   PIN(B, 3)
#define BOARD_SPI_MISO  PIN(B, 4)
#define BOARD_SPI_MOSI  PIN(B, 5)
#define BOARD_SD_CS     PIN(B, 7)
#define BOARD_KEEP_HIGH PIN(B, 0)
#ifndef BOARD_SPI_MAX_HZ
#define BOARD_SPI_MAX_HZ 21000000
#endif

/* Sensor: I2C1 on PB8 (SCL) and PB9 (SDA). */
#define BOARD_I2C_SCL PIN(B, 8)
#define BOARD_I2C_SDA PIN(B, 9)
