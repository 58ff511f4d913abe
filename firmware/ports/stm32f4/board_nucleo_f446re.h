/* ST NUCLEO-F446RE. The ST-Link's USB cable is the link: its virtual COM port is wired to USART2. */
#define BOARD_NAME "nucleo_f446re"

/* Clock: 8 MHz from the ST-Link (MCO), a square wave, not a crystal. */
#define BOARD_HSE_HZ     8000000
#define BOARD_HSE_BYPASS 1

/* Link: USART2 on PA2 (to the computer) and PA3. */
#define BOARD_UART    2
#define BOARD_UART_TX PIN(A, 2)
#define BOARD_UART_RX PIN(A, 3)
#ifndef BOARD_UART_MAX_BAUD
#define BOARD_UART_MAX_BAUD 921600
#endif

/* SD module: SPI1 on the Arduino header's D13, D12, D11, chip select on A2. */
#define BOARD_SPI_SCK  PIN(A, 5)
#define BOARD_SPI_MISO PIN(A, 6)
#define BOARD_SPI_MOSI PIN(A, 7)
#define BOARD_SD_CS    PIN(A, 4)
#ifndef BOARD_SPI_MAX_HZ
#define BOARD_SPI_MAX_HZ 21000000
#endif

/* Sensor: I2C1 on D15 (SCL), D14 (SDA). */
#define BOARD_I2C_SCL PIN(B, 8)
#define BOARD_I2C_SDA PIN(B, 9)
