/* The whole firmware: start the board, lend the device its memory, step for ever. */
#include <stddef.h>
#include <string.h>

#include "board.h"
#include "drip/device.h"
#include "imu.h"
#include "sd_spi.h"

/* Of the score: two bytes per channel of the features, and more with hidden layers. */
enum { SCRATCH_BYTES = 2 * 1024 };

extern const uint8_t model_start[], model_end[];
extern uint8_t arena_start[], arena_end[]; /* what the linker has left over */

static _Alignas(8)
    __attribute__((section(".frames"))) uint8_t capture[BOARD_CAPTURE_FRAMES][BOARD_CAPTURE_BYTES];
static drip_frame_t captured[BOARD_CAPTURE_FRAMES];
static _Alignas(4) uint8_t scratch[SCRATCH_BYTES];
static drip_device_t device;
static drip_port_t port;

static uint64_t time_us(void *context)
{
    (void)context;
    return clock_micros();
}

static uint32_t millis(void *context)
{
    (void)context;
    return clock_millis();
}

/* ------------------------------------------------------------------ card */

static const drip_sd_bus_t card_bus = {
    .exchange = spi_exchange,
    .select = spi_select,
    .clock = spi_clock,
    .millis = millis,
};
static drip_sd_t card;

static int card_blocks(void *context, uint32_t *blocks)
{
    (void)context;
    return drip_sd_blocks(&card, blocks);
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    (void)context;
    return drip_sd_read(&card, block, data, count);
}

static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    (void)context;
    return drip_sd_write(&card, block, data, count);
}

static int card_poll(void *context)
{
    (void)context;
    return drip_sd_poll(&card);
}

/* ------------------------------------------------------------------ sensor */

#if BOARD_SENSOR_IMU
static const drip_imu_bus_t sensor_bus = {
    .read = i2c_read,
    .write = i2c_write,
    .poll = i2c_poll,
    .time_us = time_us,
};
static drip_imu_t sensor;

static void sensor_start(void)
{
    static int16_t samples[(BOARD_IMU_WINDOW + BOARD_IMU_HOP) * DRIP_IMU_AXES];
    const drip_imu_config_t config = {
        .rate_hz = BOARD_IMU_RATE_HZ,
        .window = BOARD_IMU_WINDOW,
        .hop = BOARD_IMU_HOP,
    };

    i2c_start();
    if (drip_imu_init(&sensor, &sensor_bus, &config, samples) == DRIP_ERR_OK) {
        drip_imu_attach(&sensor, &port);
    }
}

static void sensor_step(void)
{
    drip_imu_step(&sensor);
}
#else
static void sensor_start(void)
{
}

static void sensor_step(void)
{
}
#endif

/* ------------------------------------------------------------------ start */

static void fill_port(void)
{
    port.time_us = time_us;
    port.link_read = uart_read;
    port.link_write = uart_write;
    port.link_baud = uart_baud;
    port.card_blocks = card_blocks;
    port.card_read = card_read;
    port.card_write = card_write;
    port.card_poll = card_poll;
    flash_attach(&port);
    port.baud_most = clock_source() == CLOCK_HSE_PLL ? BOARD_UART_MAX_BAUD : BOARD_HSI_MAX_BAUD;
    port.reset = system_reset;
    port.board_status = system_status;
    port.watchdog = system_watchdog;
    system_identity(port.device_id);
    memcpy(port.name, BOARD_NAME, sizeof(BOARD_NAME));
}

int main(void)
{
    drip_device_memory_t memory = {
        .arena = arena_start,
        .arena_bytes = ADDRESS(arena_end) - ADDRESS(arena_start),
        .capture = capture[0],
        .capture_bytes = BOARD_CAPTURE_BYTES,
        .capture_frames = BOARD_CAPTURE_FRAMES,
        .captured = captured,
        .scratch = scratch,
        .scratch_bytes = sizeof(scratch),
        .fixed_model = ADDRESS(model_end) == ADDRESS(model_start) ? NULL : model_start,
        .fixed_model_bytes = ADDRESS(model_end) - ADDRESS(model_start),
    };
    static const char banner[] = "\r\nDRIP on " BOARD_NAME "\r\n";

    port.boot_reason = system_start();
    clock_start();
    flash_protect_supply();
    uart_start(DRIP_LINK_BAUD_DEFAULT);
    spi_start();
    drip_sd_init(&card, &card_bus);
    uart_write(NULL, (const uint8_t *)banner, sizeof(banner) - 1);
    fill_port();
    sensor_start();
    if (drip_device_init(&device, &port, &memory) < 0) {
        return 1;
    }
    for (;;) {
        sensor_step();
        if (!drip_device_step(&device)) {
            system_sleep();
        }
    }
}
