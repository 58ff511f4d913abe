/* ST STM32F4DISCOVERY (STM32F407G-DISC1). Its USB cable only flashes: the link needs a USB-serial adapter. */
#define BOARD_NAME "disco_f407vg"

/* Clock: 8 MHz crystal. */
#define BOARD_HSE_HZ     8000000
#define BOARD_HSE_BYPASS 0

/* Link: USART2 on PA2 (to the adapter's RX) and PA3 (to its TX). */
#define BOARD_UART    2
#define BOARD_UART_TX PIN(A, 2)
#define BOARD_UART_RX PIN(A, 3)
#ifndef BOARD_UART_MAX_BAUD
#define BOARD_UART_MAX_BAUD 921600
#endif

/* SD module: SPI1 on PB3, PB4, PB5: its other pins, PA5 to PA7, lead to the accelerometer on the board. */
#define BOARD_SPI_SCK  PIN(B, 3)
#define BOARD_SPI_MISO PIN(B, 4)
#define BOARD_SPI_MOSI PIN(B, 5)
#define BOARD_SD_CS    PIN(B, 7)
#ifndef BOARD_SPI_MAX_HZ
#define BOARD_SPI_MAX_HZ 21000000
#endif

/* Sensor: I2C1 on PB8 (SCL) and PB9 (SDA); PB6, the other SCL, belongs to the audio codec. */
#define BOARD_I2C_SCL PIN(B, 8)
#define BOARD_I2C_SDA PIN(B, 9)
