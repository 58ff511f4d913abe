#include "imu.h"

#include <string.h>

enum {
    STAGE_PROBE,    /* reads who is there */
    STAGE_RESET,    /* resets it */
    STAGE_SETTINGS, /* writes its settings */
    STAGE_RUN
};

enum { MAX_SETTINGS = 6, MAX_NAMES = 4, SECOND_US = 1000000, FRACTION = 14 };

typedef struct {
    uint8_t reg;
    uint8_t value;
} setting_t;

/* A family of sensors. Settings: 8 g, 1000 degrees per second, about 200 samples per second, low pass
 * at about 20 Hz where the sensor has one. */
typedef struct {
    uint8_t addresses[2];
    uint8_t name_reg;
    uint8_t names[MAX_NAMES]; /* what it may hold; 0 = no more */
    setting_t reset;
    setting_t settings[MAX_SETTINGS]; /* reg 0 = no more */
    uint8_t data_reg;                 /* the status register; one read gets all from there on */
    uint8_t data_bytes;
    uint8_t ready_mask;
    uint8_t accel_at;
    uint8_t gyro_at;
    uint8_t is_big_endian;
    uint16_t accel_q16; /* mg per bit */
    uint16_t gyro_q16;  /* mrad/s per bit */
} family_t;

/* What the MPU families have in common: 4096 bits per g, 32.8 per degree per second. */
#define MPU_FAMILY                                                                                 \
    .addresses = {0x68, 0x69}, .name_reg = 0x75, .reset = {0x6B, 0x80}, .data_reg = 0x3A,          \
    .data_bytes = 15, .ready_mask = 0x01, .accel_at = 1, .gyro_at = 9, .is_big_endian = 1,         \
    .accel_q16 = 16000, .gyro_q16 = 34873

static const family_t families[] = {
    /* MPU-6050 */
    {
        MPU_FAMILY,
        .names = {0x68},
        .settings = {{0x6B, 0x01}, {0x1A, 0x04}, {0x19, 4}, {0x1B, 0x10}, {0x1C, 0x10}, {0x38, 1}},
    },
    /* MPU-6500, -9250, -9255: the accelerometer has a filter register of its own. The clock source is
     * automatic after reset; data-ready is reported without its interrupt. */
    {
        MPU_FAMILY,
        .names = {0x70, 0x71, 0x73},
        .settings = {{0x1A, 0x04}, {0x19, 4}, {0x1B, 0x10}, {0x1C, 0x10}, {0x1D, 0x04}, {0x38, 1}},
    },
    /* LSM6DSO, LSM6DSOX (0x6C), LSM6DSL (0x6A), LSM6DS3 (0x69): 0.244 mg and 35 mdps per bit. */
    {
        .addresses = {0x6A, 0x6B},
        .name_reg = 0x0F,
        .names = {0x6C, 0x6A, 0x69},
        .reset = {0x12, 0x01},
        .settings = {{0x12, 0x44}, {0x10, 0x5E}, {0x17, 0x20}, {0x11, 0x58}},
        .data_reg = 0x1E,
        .data_bytes = 16,
        .ready_mask = 0x03,
        .accel_at = 10,
        .gyro_at = 4,
        .accel_q16 = 15991,
        .gyro_q16 = 40034,
    },
};

enum { FAMILIES = sizeof(families) / sizeof(families[0]) };

int drip_imu_init(drip_imu_t *imu, const drip_imu_bus_t *bus, const drip_imu_config_t *config,
                  int16_t *samples)
{
    if (config->rate_hz < 10 || config->rate_hz > 100 || config->window == 0 || config->hop == 0 ||
        config->hop > config->window) {
        return DRIP_ERR_ARGUMENT;
    }
    memset(imu, 0, sizeof(*imu));
    imu->bus = bus;
    imu->config = *config;
    imu->samples = samples;
    return DRIP_ERR_OK;
}

static const family_t *family_of(const drip_imu_t *imu)
{
    return &families[imu->kind];
}

static void go(drip_imu_t *imu, uint8_t stage, uint64_t due_us)
{
    imu->stage = stage;
    imu->probe = 0;
    imu->due_us = due_us;
}

/* The sensor is gone, or has stopped: it is set up again from the start. */
static void look_again(drip_imu_t *imu, uint64_t now_us)
{
    if (imu->running) {
        imu->gaps++;
    }
    imu->running = 0;
    imu->count = 0;
    go(imu, STAGE_PROBE, now_us + DRIP_IMU_RETRY_US);
}

/* ------------------------------------------------------------------ windows */

static uint32_t period_us(const drip_imu_t *imu)
{
    return (uint32_t)SECOND_US / imu->config.rate_hz;
}

/* Rates that do not divide a second get their fractions back, so that the rate stays exact. */
static void next_tick(drip_imu_t *imu)
{
    imu->tick_us += period_us(imu);
    imu->tick_rest += (uint32_t)SECOND_US % imu->config.rate_hz;
    if (imu->tick_rest >= imu->config.rate_hz) {
        imu->tick_rest -= imu->config.rate_hz;
        imu->tick_us++;
    }
}

static void slide(drip_imu_t *imu)
{
    uint32_t left = imu->count - imu->config.hop;

    memmove(imu->samples, imu->samples + imu->config.hop * DRIP_IMU_AXES,
            left * DRIP_IMU_SAMPLE_BYTES);
    imu->count = left;
}

static void add_sample(drip_imu_t *imu, const int16_t *values, uint32_t fraction)
{
    int16_t *to;

    if (imu->count == imu->config.window + imu->config.hop) {
        imu->missed++;
        slide(imu);
    }
    to = imu->samples + imu->count * DRIP_IMU_AXES;
    for (int axis = 0; axis < DRIP_IMU_AXES; axis++) {
        int32_t before = imu->before[axis], change = values[axis] - before;

        to[axis] =
            (int16_t)(before + ((change * (int32_t)fraction + (1 << (FRACTION - 1))) >> FRACTION));
    }
    imu->count++;
    imu->last_us = imu->tick_us;
}

/* A sample of the sensor: fills in what is due up to now. */
static void take_sample(drip_imu_t *imu, uint64_t now_us, const int16_t *values)
{
    uint64_t passed = now_us - imu->before_us;

    if (!imu->running || passed > 2u * period_us(imu)) {
        imu->gaps += imu->running;
        imu->count = 0;
        imu->running = 1;
        imu->tick_us = now_us + period_us(imu);
        imu->tick_rest = 0;
    } else {
        while (imu->tick_us <= now_us) {
            uint32_t since = (uint32_t)(imu->tick_us - imu->before_us);

            add_sample(imu, values, (since << FRACTION) / (uint32_t)passed);
            next_tick(imu);
        }
    }
    memcpy(imu->before, values, sizeof(imu->before));
    imu->before_us = now_us;
    imu->heard_us = now_us;
}

static int16_t scale(const family_t *family, const uint8_t *data, uint32_t q16)
{
    int16_t raw =
        (int16_t)(family->is_big_endian ? data[0] << 8 | data[1] : data[1] << 8 | data[0]);

    return (int16_t)((raw * (int32_t)q16 + 0x8000) >> 16);
}

static void look_at_data(drip_imu_t *imu, uint64_t now_us)
{
    const family_t *family = family_of(imu);
    int16_t values[DRIP_IMU_AXES];

    if ((imu->data[0] & family->ready_mask) != family->ready_mask) {
        if (now_us - imu->heard_us > DRIP_IMU_STALL_US) {
            look_again(imu, now_us);
        }
        return;
    }
    for (int axis = 0; axis < 3; axis++) {
        values[axis] = scale(family, imu->data + family->accel_at + 2 * axis, family->accel_q16);
        values[axis + 3] = scale(family, imu->data + family->gyro_at + 2 * axis, family->gyro_q16);
    }
    take_sample(imu, now_us, values);
}

/* ------------------------------------------------------------------ transfers */

static int is_named(const family_t *family, uint8_t name)
{
    for (int i = 0; i < MAX_NAMES; i++) {
        if (name != 0 && family->names[i] == name) {
            return 1;
        }
    }
    return 0;
}

static int start_transfer(drip_imu_t *imu)
{
    const drip_imu_bus_t *bus = imu->bus;
    const family_t *family;

    if (imu->stage == STAGE_PROBE) {
        family = &families[imu->probe / 2];
        imu->data[0] = 0;
        return bus->read(bus->context, family->addresses[imu->probe % 2], family->name_reg,
                         imu->data, 1);
    }
    family = family_of(imu);
    if (imu->stage == STAGE_RUN) {
        return bus->read(bus->context, imu->address, family->data_reg, imu->data,
                         family->data_bytes);
    }
    const setting_t *setting =
        imu->stage == STAGE_RESET ? &family->reset : &family->settings[imu->probe];
    return bus->write(bus->context, imu->address, setting->reg, setting->value);
}

static void probed(drip_imu_t *imu, uint64_t now_us, int result)
{
    const family_t *family = &families[imu->probe / 2];

    if (result == DRIP_ERR_OK && is_named(family, imu->data[0])) {
        imu->kind = imu->probe / 2;
        imu->address = family->addresses[imu->probe % 2];
        imu->failed = 0;
        go(imu, STAGE_RESET, now_us);
    } else if (++imu->probe == 2 * FAMILIES) {
        go(imu, STAGE_PROBE, now_us + DRIP_IMU_RETRY_US);
    }
}

static void set(drip_imu_t *imu, uint64_t now_us)
{
    imu->probe++;
    if (imu->probe == MAX_SETTINGS || family_of(imu)->settings[imu->probe].reg == 0) {
        imu->restarts++;
        imu->heard_us = now_us;
        go(imu, STAGE_RUN, now_us);
    }
}

static void finished(drip_imu_t *imu, uint64_t now_us, int result)
{
    if (imu->stage == STAGE_PROBE) {
        probed(imu, now_us, result); /* nobody at an address is no error */
        return;
    }
    if (result < 0) {
        imu->bus_errors++;
        imu->failed++;
        imu->due_us = now_us + DRIP_IMU_POLL_US;
        if (imu->failed >= DRIP_IMU_ERRORS) {
            look_again(imu, now_us);
        }
        return;
    }
    imu->failed = 0;
    if (imu->stage == STAGE_RESET) {
        go(imu, STAGE_SETTINGS, now_us + DRIP_IMU_RESET_US);
    } else if (imu->stage == STAGE_SETTINGS) {
        set(imu, now_us);
    } else {
        imu->due_us = now_us + DRIP_IMU_POLL_US;
        look_at_data(imu, now_us);
    }
}

void drip_imu_step(drip_imu_t *imu)
{
    uint64_t now_us = imu->bus->time_us(imu->bus->context);
    int result;

    if (!imu->moving) {
        if (now_us < imu->due_us) {
            return;
        }
        result = start_transfer(imu);
        if (result < 0) {
            finished(imu, now_us, result);
            return;
        }
        imu->moving = 1;
    }
    result = imu->bus->poll(imu->bus->context);
    if (result != DRIP_ERR_BUSY) {
        imu->moving = 0;
        finished(imu, now_us, result);
    }
}

/* ------------------------------------------------------------------ frames */

int drip_imu_take(drip_imu_t *imu, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    uint32_t size = (uint32_t)imu->config.window * DRIP_IMU_SAMPLE_BYTES;

    if (imu->count < imu->config.window || buffer_bytes < size) {
        return 0;
    }
    for (uint32_t i = 0; i < size / 2; i++) {
        uint16_t value = (uint16_t)imu->samples[i];

        buffer[2 * i] = (uint8_t)value;
        buffer[2 * i + 1] = (uint8_t)(value >> 8);
    }
    memset(frame, 0, sizeof(*frame));
    frame->data = buffer;
    frame->size = size;
    frame->time_us = imu->last_us - (uint64_t)(imu->count - imu->config.window) * period_us(imu);
    frame->stream_id = imu->config.stream_id;
    imu->windows++;
    slide(imu);
    return 1;
}

void drip_imu_stream(const drip_imu_t *imu, drip_stream_t *stream)
{
    memset(stream, 0, sizeof(*stream));
    stream->id = imu->config.stream_id;
    stream->dtype = DRIP_DTYPE_I16;
    stream->rank = 2;
    stream->shape[0] = imu->config.window;
    stream->shape[1] = DRIP_IMU_AXES;
    stream->shape[2] = stream->shape[3] = 1;
    stream->rate_mhz = 1000u * imu->config.rate_hz / imu->config.hop;
    stream->scale = 0x3F800000; /* 1.0: mg and mrad/s as they are */
}

int drip_imu_present(const drip_imu_t *imu)
{
    return imu->stage == STAGE_RUN && imu->running;
}

/* ------------------------------------------------------------------ port */

static int port_poll(void *context, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    return drip_imu_take(context, buffer, buffer_bytes, frame);
}

static int port_stream(void *context, uint32_t index, drip_stream_t *stream)
{
    if (index != 0) {
        return 0;
    }
    drip_imu_stream(context, stream);
    return 1;
}

void drip_imu_attach(drip_imu_t *imu, drip_port_t *port)
{
    port->context = imu;
    port->sensor_poll = port_poll;
    port->sensor_stream = port_stream;
}
