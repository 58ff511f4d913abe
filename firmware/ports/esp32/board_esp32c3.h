/* esp32-c3-devkitm-1: ESP32-C3-DevKitM-1, 4 MiB flash, one RISC-V core. */
#define BOARD_NAME "esp32-c3-devkit"
#ifndef BOARD_ARENA_BYTES
#define BOARD_ARENA_BYTES (96 * 1024)
#endif
/* Of UART0, and so of the USB connector behind a bridge. */
#define BOARD_UART_TX  21
#define BOARD_UART_RX  20
#define BOARD_SPI_CLK  6
#define BOARD_SPI_MISO 5
#define BOARD_SPI_MOSI 7
#define BOARD_SPI_CS   10
#define BOARD_I2C_SCL  1
#define BOARD_I2C_SDA  0
#define BOARD_I2S_BCLK 4
#define BOARD_I2S_WS   3
#define BOARD_I2S_DIN  2
