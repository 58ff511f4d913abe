/* Frames of the board's own sensor: a motion sensor on I2C, a microphone on I2S, or none. */
#include "board.h"

#if BOARD_SENSOR_IMU && BOARD_SENSOR_MIC
#error "one sensor at a time: BOARD_SENSOR_IMU or BOARD_SENSOR_MIC"
#endif

#if BOARD_SENSOR_IMU

#include "driver/i2c_master.h"
#include "imu.h"
#include "job.h"

enum { I2C_HZ = 400000, I2C_TIMEOUT_MS = 20, BUS_READ = 1, BUS_WRITE };

static i2c_master_bus_handle_t bus;
static i2c_master_dev_handle_t chip;
static uint8_t chip_address;
static TaskHandle_t task;
static desk_t desk;
static drip_imu_t sensor;

/* ---- task `bus` */

static esp_err_t select_chip(uint8_t address)
{
    i2c_device_config_t config = {
        .dev_addr_length = I2C_ADDR_BIT_LEN_7,
        .device_address = address,
        .scl_speed_hz = I2C_HZ,
    };

    if (chip != NULL && chip_address == address) {
        return ESP_OK;
    }
    if (chip != NULL) {
        i2c_master_bus_rm_device(chip);
        chip = NULL;
    }
    chip_address = address;
    return i2c_master_bus_add_device(bus, &config, &chip);
}

/* `at`: address, register and value, eight bits each. */
static int bus_work(const job_t *job)
{
    uint8_t bytes[2] = {(uint8_t)(job->at >> 8), (uint8_t)(job->at >> 16)};
    esp_err_t error = select_chip((uint8_t)job->at);

    if (error == ESP_OK && job->kind == BUS_READ) {
        error = i2c_master_transmit_receive(chip, bytes, 1, job->data, job->count, I2C_TIMEOUT_MS);
    } else if (error == ESP_OK) {
        error = i2c_master_transmit(chip, bytes, 2, I2C_TIMEOUT_MS);
    }
    return error == ESP_OK            ? DRIP_ERR_OK
           : error == ESP_ERR_TIMEOUT ? DRIP_ERR_TIMEOUT
                                      : DRIP_ERR_IO;
}

static void bus_task(void *argument)
{
    job_t job;

    (void)argument;
    for (;;) {
        ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
        if (desk_take(&desk, &job)) {
            desk_finish(&desk, bus_work(&job));
            board_wake();
        }
    }
}

/* ---- owner */

static int bus_post(const job_t *job)
{
    int result = desk_post(&desk, job);

    if (result == DRIP_ERR_OK) {
        xTaskNotifyGive(task);
    }
    return result;
}

static int bus_read(void *context, uint8_t address, uint8_t reg, uint8_t *data, uint32_t size)
{
    const job_t job = {.kind = BUS_READ, .at = address | reg << 8, .count = size, .data = data};

    (void)context;
    return bus_post(&job);
}

static int bus_write(void *context, uint8_t address, uint8_t reg, uint8_t value)
{
    const job_t job = {.kind = BUS_WRITE, .at = address | reg << 8 | (uint32_t)value << 16};

    (void)context;
    return bus_post(&job);
}

static int bus_poll(void *context)
{
    (void)context;
    return desk_poll(&desk);
}

static const drip_imu_bus_t sensor_bus = {
    .read = bus_read,
    .write = bus_write,
    .poll = bus_poll,
    .time_us = system_time_us,
};

void sensor_start(drip_port_t *port)
{
    static int16_t samples[(BOARD_IMU_WINDOW + BOARD_IMU_HOP) * DRIP_IMU_AXES];
    const i2c_master_bus_config_t bus_config = {
        .i2c_port = -1,
        .sda_io_num = BOARD_I2C_SDA,
        .scl_io_num = BOARD_I2C_SCL,
        .clk_source = I2C_CLK_SRC_DEFAULT,
        .glitch_ignore_cnt = 7,
        .flags.enable_internal_pullup = true,
    };
    const drip_imu_config_t config = {
        .rate_hz = BOARD_IMU_RATE_HZ,
        .window = BOARD_IMU_WINDOW,
        .hop = BOARD_IMU_HOP,
    };

    if (i2c_new_master_bus(&bus_config, &bus) == ESP_OK &&
        xTaskCreate(bus_task, "bus", TASK_STACK_OTHER, NULL, TASK_PRIORITY_BUS, &task) == pdPASS &&
        drip_imu_init(&sensor, &sensor_bus, &config, samples) == DRIP_ERR_OK) {
        drip_imu_attach(&sensor, port);
    }
}

uint32_t sensor_step(void)
{
    if (task != NULL) {
        drip_imu_step(&sensor);
    }
    return 0;
}

#elif BOARD_SENSOR_MIC

#include "driver/i2s_std.h"
#include "mic.h"

/* DMA holds 90 ms of sound at 16 kHz; a step of the owner takes 5. */
enum { DMA_BUFFERS = 6, DMA_SAMPLES = 240 };

static i2s_chan_handle_t channel;
static drip_mic_t microphone;

static int sensor_poll(void *context, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    (void)context;
    return drip_mic_take(&microphone, buffer, buffer_bytes, frame);
}

static int sensor_stream(void *context, uint32_t index, drip_stream_t *stream)
{
    (void)context;
    if (index != 0) {
        return 0;
    }
    drip_mic_stream(&microphone, stream);
    return 1;
}

static int start_channel(void)
{
    i2s_chan_config_t channel_config = I2S_CHANNEL_DEFAULT_CONFIG(I2S_NUM_0, I2S_ROLE_MASTER);
    i2s_std_config_t config = {
        .clk_cfg = I2S_STD_CLK_DEFAULT_CONFIG(BOARD_MIC_RATE_HZ),
        .slot_cfg =
            I2S_STD_PHILIPS_SLOT_DEFAULT_CONFIG(I2S_DATA_BIT_WIDTH_32BIT, I2S_SLOT_MODE_MONO),
        .gpio_cfg =
            {
                .mclk = I2S_GPIO_UNUSED,
                .bclk = BOARD_I2S_BCLK,
                .ws = BOARD_I2S_WS,
                .dout = I2S_GPIO_UNUSED,
                .din = BOARD_I2S_DIN,
            },
    };

    config.slot_cfg.slot_mask = I2S_STD_SLOT_LEFT; /* L/R of the microphone on ground */
    channel_config.dma_desc_num = DMA_BUFFERS;
    channel_config.dma_frame_num = DMA_SAMPLES;
    return i2s_new_channel(&channel_config, NULL, &channel) == ESP_OK &&
           i2s_channel_init_std_mode(channel, &config) == ESP_OK &&
           i2s_channel_enable(channel) == ESP_OK;
}

void sensor_start(drip_port_t *port)
{
    static int16_t samples[BOARD_MIC_WINDOW + BOARD_MIC_HOP];
    const drip_mic_config_t config = {
        .rate_hz = BOARD_MIC_RATE_HZ,
        .window = BOARD_MIC_WINDOW,
        .hop = BOARD_MIC_HOP,
        .shift = BOARD_MIC_SHIFT,
    };

    if (start_channel() && drip_mic_init(&microphone, &config, samples) == DRIP_ERR_OK) {
        port->sensor_poll = sensor_poll;
        port->sensor_stream = sensor_stream;
    } else {
        channel = NULL;
    }
}

/* One DMA buffer per step, and no waiting for it. */
uint32_t sensor_step(void)
{
    static int32_t piece[DMA_SAMPLES];
    size_t got = 0;

    if (channel == NULL) {
        return 0;
    }
    i2s_channel_read(channel, piece, sizeof(piece), &got, 0);
    return drip_mic_put(&microphone, piece, got / sizeof(piece[0]), system_time_us(NULL));
}

#else

void sensor_start(drip_port_t *port)
{
    (void)port;
}

uint32_t sensor_step(void)
{
    return 0;
}

#endif
