/* The whole firmware: start the board, lend the device its memory, step for ever. */
#include "board.h"
#include "drip/device.h"
#include "esp_task_wdt.h"

#include <string.h>

enum { SCRATCH_BYTES = 2 * 1024 };

/* Sound and its spectrum need a core of their own where there are two. */
#if CONFIG_FREERTOS_UNICORE || CONFIG_IDF_TARGET_ESP32C3
enum { SCORE_CORE = 0 };
#else
enum { SCORE_CORE = 1 };
#endif

extern const uint8_t model_start[], model_end[];

static _Alignas(16) uint8_t arena[BOARD_ARENA_BYTES];
static _Alignas(8) uint8_t capture[BOARD_CAPTURE_FRAMES][BOARD_CAPTURE_BYTES];
static drip_frame_t captured[BOARD_CAPTURE_FRAMES];
static _Alignas(4) uint8_t scratch[SCRATCH_BYTES];
static drip_device_t device;
static drip_port_t port;
static TaskHandle_t owner;

void board_wake(void)
{
    if (owner != NULL) {
        xTaskNotifyGive(owner);
    }
}

static void fill_port(void)
{
    port.time_us = system_time_us;
    port.link_read = line_read;
    port.link_write = line_write;
#if !BOARD_LINE_USB
    port.link_baud = line_baud;
    port.baud_most = BOARD_UART_MAX_BAUD;
#endif
    port.reset = system_reset;
    port.board_status = system_status;
    port.watchdog = system_watchdog;
    card_attach(&port);
    slots_attach(&port);
    system_identity(port.device_id);
    memcpy(port.name, BOARD_NAME, sizeof(BOARD_NAME));
}

static void score_task(void *argument)
{
    const uint32_t model_bytes = (uint32_t)((uintptr_t)model_end - (uintptr_t)model_start);
    const drip_device_memory_t memory = {
        .arena = arena,
        .arena_bytes = sizeof(arena),
        .capture = capture[0],
        .capture_bytes = BOARD_CAPTURE_BYTES,
        .capture_frames = BOARD_CAPTURE_FRAMES,
        .captured = captured,
        .scratch = scratch,
        .scratch_bytes = sizeof(scratch),
        .fixed_model = model_bytes != 0 ? model_start : NULL,
        .fixed_model_bytes = model_bytes,
    };

    (void)argument;
    owner = xTaskGetCurrentTaskHandle();
    esp_task_wdt_add(NULL);
    if (drip_device_init(&device, &port, &memory) < 0) {
        system_reset(NULL);
    }
    for (;;) {
        drip_device_lost(&device, sensor_step());
        if (!drip_device_step(&device)) {
            ulTaskNotifyTake(pdTRUE, 1);
        }
    }
}

void app_main(void)
{
    port.boot_reason = system_start();
    fill_port();
    sensor_start(&port);
    if (worker_start() < 0 || line_start() < 0 ||
        xTaskCreatePinnedToCore(score_task, "score", TASK_STACK_SCORE, NULL, TASK_PRIORITY_SCORE,
                                NULL, SCORE_CORE) != pdPASS) {
        system_reset(NULL);
    }
}
