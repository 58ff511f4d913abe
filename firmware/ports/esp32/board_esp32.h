/* esp32dev: ESP32-DevKitC and its copies, ESP32-WROOM-32, 4 MiB flash. */
#define BOARD_NAME "esp32dev"
#ifndef BOARD_ARENA_BYTES
#define BOARD_ARENA_BYTES (56 * 1024)
#endif
/* Of UART0, and so of the USB connector behind a bridge. */
#define BOARD_UART_TX  1
#define BOARD_UART_RX  3
#define BOARD_SPI_CLK  18
#define BOARD_SPI_MISO 19
#define BOARD_SPI_MOSI 23
#define BOARD_SPI_CS   5
#define BOARD_I2C_SCL  22
#define BOARD_I2C_SDA  21
#define BOARD_I2S_BCLK 26
#define BOARD_I2S_WS   25
#define BOARD_I2S_DIN  33
/* Fixed; only ESP-IDF 6 wants them named. */
#if ESP_IDF_VERSION_MAJOR >= 6
#define BOARD_SDMMC_CLK 14
#define BOARD_SDMMC_CMD 15
#define BOARD_SDMMC_D0  2
#define BOARD_SDMMC_D1  4
#define BOARD_SDMMC_D2  12
#define BOARD_SDMMC_D3  13
#endif
