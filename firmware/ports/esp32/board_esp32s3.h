/* esp32-s3-devkitc-1: ESP32-S3-DevKitC-1, 8 MiB flash. */
#define BOARD_NAME "esp32-s3-devkit"
#ifndef BOARD_ARENA_BYTES
#define BOARD_ARENA_BYTES (128 * 1024)
#endif
/* Of UART0, and so of the USB connector behind a bridge. */
#define BOARD_UART_TX   43
#define BOARD_UART_RX   44
#define BOARD_SPI_CLK   12
#define BOARD_SPI_MISO  13
#define BOARD_SPI_MOSI  11
#define BOARD_SPI_CS    10
#define BOARD_SDMMC_CLK 14
#define BOARD_SDMMC_CMD 15
#define BOARD_SDMMC_D0  2
#define BOARD_SDMMC_D1  4
#define BOARD_SDMMC_D2  12
#define BOARD_SDMMC_D3  13
#define BOARD_I2C_SCL   9
#define BOARD_I2C_SDA   8
#define BOARD_I2S_BCLK  5
#define BOARD_I2S_WS    6
#define BOARD_I2S_DIN   7
