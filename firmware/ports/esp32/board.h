/* What a board is, and the functions of this port. Every setting can be replaced by a build flag, for example
 * -DBOARD_SENSOR_MIC=1. Pins are GPIO numbers.
 *
 * Tasks: `score` is the one owner, it runs drip_device_step. `link` moves bytes between the line's driver and
 * two rings. `card` does what blocks: card and flash. `bus`, with a motion sensor, does I2C. */
#ifndef BOARD_H
#define BOARD_H

#include "drip/port.h"
#include "esp_idf_version.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "sdkconfig.h"

#if CONFIG_IDF_TARGET_ESP32
#include "board_esp32.h"
#elif CONFIG_IDF_TARGET_ESP32S3
#include "board_esp32s3.h"
#elif CONFIG_IDF_TARGET_ESP32C3
#include "board_esp32c3.h"
#else
#error "this port knows ESP32, ESP32-S3 and ESP32-C3"
#endif

/* 0: UART0, which is the USB connector of a board with a bridge. 1: the chip's own USB Serial/JTAG. */
#ifndef BOARD_LINE_USB
#define BOARD_LINE_USB 0
#endif
#ifndef BOARD_UART_MAX_BAUD
#define BOARD_UART_MAX_BAUD 921600
#endif

/* 0: card in SPI mode. 1: SDMMC with four data lines (ESP32, ESP32-S3). */
#ifndef BOARD_CARD_SDMMC
#define BOARD_CARD_SDMMC 0
#endif
#ifndef BOARD_CARD_KHZ
#define BOARD_CARD_KHZ 20000
#endif

/* Where pushed models lie. 0: in the data partition `drip`, from where they run. 1: on the card, for boards whose
 * flash has no room: two copies in RAM, BOARD_SLOT_BYTES each, so models are small without PSRAM. */
#ifndef BOARD_SLOTS_CARD
#define BOARD_SLOTS_CARD 0
#endif
#ifndef BOARD_SLOT_BYTES
#define BOARD_SLOT_BYTES (24 * 1024)
#endif

/* Where frames come from beside FEED: one of the two at most. */
#ifndef BOARD_SENSOR_IMU
#define BOARD_SENSOR_IMU 0
#endif
#ifndef BOARD_SENSOR_MIC
#define BOARD_SENSOR_MIC 0
#endif
#ifndef BOARD_IMU_RATE_HZ
#define BOARD_IMU_RATE_HZ 50
#endif
#ifndef BOARD_IMU_WINDOW
#define BOARD_IMU_WINDOW 50
#endif
#ifndef BOARD_IMU_HOP
#define BOARD_IMU_HOP 25
#endif
#ifndef BOARD_MIC_RATE_HZ
#define BOARD_MIC_RATE_HZ 16000
#endif
#ifndef BOARD_MIC_WINDOW
#define BOARD_MIC_WINDOW 16000
#endif
#ifndef BOARD_MIC_HOP
#define BOARD_MIC_HOP 8000
#endif
#ifndef BOARD_MIC_SHIFT
#define BOARD_MIC_SHIFT                                                                            \
    13 /* 18 dB more than full scale: speech at a metre reaches a few thousand */
#endif

#ifndef BOARD_CAPTURE_BYTES
#define BOARD_CAPTURE_BYTES                                                                        \
    (BOARD_SENSOR_MIC ? 2 * BOARD_MIC_WINDOW : BOARD_SENSOR_IMU ? 2 * 1024 : 28 * 1024)
#endif
#ifndef BOARD_CAPTURE_FRAMES
#define BOARD_CAPTURE_FRAMES (BOARD_SENSOR_IMU ? 4 : 1)
#endif

enum { TASK_STACK_SCORE = 8192, TASK_STACK_OTHER = 4096 };
enum {
    TASK_PRIORITY_SCORE = 5,
    TASK_PRIORITY_CARD = 6,
    TASK_PRIORITY_BUS = 7,
    TASK_PRIORITY_LINK = 8
};

/* ------------------------------------------------------------------ main.c */

/* Wakes the owner from its sleep. From any task. */
void board_wake(void);

/* ------------------------------------------------------------------ line.c */

int line_start(void);
int line_read(void *context, uint8_t *data, uint32_t size);
int line_write(void *context, const uint8_t *data, uint32_t size);
int line_baud(void *context, uint32_t baud);

/* ------------------------------------------------------------------ worker.c */

/* What the task `card` does for the owner. */
enum { JOB_CARD_START = 1, JOB_CARD_READ, JOB_CARD_WRITE, JOB_FLASH_ERASE, JOB_FLASH_WRITE };

int worker_start(void);
/* Hands it a job, one at a time for the card and one for the flash. Returns DRIP_ERR_OK or _BUSY. */
int worker_post(uint8_t kind, uint32_t at, void *data, uint32_t count);
/* Return DRIP_ERR_BUSY, or the result of the last job. */
int worker_card_poll(void);
int worker_flash_poll(void);

/* ------------------------------------------------------------------ card.c */

void card_attach(drip_port_t *port);
/* In the task `card`: does a job and waits for its end. Returns DRIP_ERR_*. */
int card_work(uint8_t kind, uint32_t block, uint8_t *data, uint32_t count);

/* ------------------------------------------------------------------ slots.c */

/* Four areas in a row: two slots, two halves of the journal. */
typedef struct {
    const uint8_t *map;
    uint32_t slot_bytes;
    uint32_t journal_bytes;
} slots_t;

/* Finds the slots; without them the board has the model of the image only. Before the tasks start. */
void slots_attach(drip_port_t *port);

/* ------------------------------------------------------------------ slots_partition.c or slots_card.c */

/* Returns DRIP_ERR_OK, or why the board has no slots. */
int slots_open(slots_t *slots);
/* In the task `card`; `at` counts from the begin of `map`. */
int slots_work(uint8_t kind, uint32_t at, const uint8_t *data, uint32_t count);
/* In the task `card`: the card was started anew and may be another one. */
void slots_card_changed(void);

/* ------------------------------------------------------------------ sensor_*.c */

/* Starts the sensor and sets the port's functions. */
void sensor_start(drip_port_t *port);
/* Does a bounded piece. Returns how many frames were lost for want of room. */
uint32_t sensor_step(void);

/* ------------------------------------------------------------------ system.c */

/* Finds out why the chip started and what a crash left. Returns enum DRIP_BOOT_*. */
uint8_t system_start(void);
uint64_t system_time_us(void *context);
void system_reset(void *context);
void system_watchdog(void *context);
void system_status(void *context, drip_status_t *status);
void system_identity(uint8_t id[16]);

#endif
