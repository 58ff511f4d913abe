/* Accelerometer and gyroscope on I2C: MPU-6050, MPU-6500/9250, LSM6DSO and relatives.
 *
 * The sensor runs at about 200 Hz on its own clock. Its samples are interpolated to an exact rate on the
 * board's clock and collected into overlapping windows: int16, x y z of the acceleration in mg, then
 * x y z of the rotation in mrad/s, as the models of the `imu` recipes are trained on.
 *
 * Data-ready is polled; nothing waits. A sensor that is absent or stops is looked for again every
 * second. Where samples are missing for longer than two periods, the window begins anew. */
#ifndef DRIP_IMU_H
#define DRIP_IMU_H

#include "drip/port.h"

enum {
    DRIP_IMU_AXES = 6,
    DRIP_IMU_SAMPLE_BYTES = 12,
    DRIP_IMU_POLL_US = 2000,     /* between two looks at data-ready */
    DRIP_IMU_RESET_US = 100000,  /* until a sensor is ready after its reset */
    DRIP_IMU_RETRY_US = 1000000, /* between two looks for a sensor */
    DRIP_IMU_STALL_US = 100000,  /* without a sample: the sensor has stopped */
    DRIP_IMU_ERRORS = 5          /* failed transfers in a row: it is gone */
};

/* What a board must provide. Transfers start and are polled, one at a time. */
typedef struct {
    void *context;
    /* Writes the number of a register, then reads `size` bytes, at most 16, from it on. `data` stays valid
     * until polled done. */
    int (*read)(void *context, uint8_t address, uint8_t reg, uint8_t *data, uint32_t size);
    int (*write)(void *context, uint8_t address, uint8_t reg, uint8_t value);
    /* Returns DRIP_ERR_OK, _BUSY, _IO (not acknowledged) or _TIMEOUT. */
    int (*poll)(void *context);
    /* Monotonic microseconds. */
    uint64_t (*time_us)(void *context);
} drip_imu_bus_t;

typedef struct {
    uint16_t rate_hz; /* of the samples in a window, 10 to 100 */
    uint16_t window;  /* samples in a window */
    uint16_t hop;     /* samples between the starts of two windows, 1 to `window` */
    uint16_t stream_id;
} drip_imu_config_t;

/* A sensor. Members are private but for the counters. */
typedef struct {
    const drip_imu_bus_t *bus;
    drip_imu_config_t config;
    int16_t *samples;    /* lent: `window` + `hop` samples */
    uint32_t count;      /* in `samples` */
    uint64_t last_us;    /* time of the last one */
    uint64_t tick_us;    /* of the next sample */
    uint64_t before_us;  /* of `before` */
    uint64_t due_us;     /* next thing to do */
    uint64_t heard_us;   /* last sample */
    uint32_t tick_rest;  /* of a microsecond: rates that do not divide a second */
    uint32_t windows;    /* counters: windows handed over, */
    uint32_t missed;     /* not fetched in time, */
    uint32_t gaps;       /* broken off because samples were missing, */
    uint32_t bus_errors; /* failed transfers, */
    uint32_t restarts;   /* times that the sensor was set up */
    int16_t before[DRIP_IMU_AXES];
    uint8_t data[16];
    uint8_t stage;
    uint8_t moving; /* a transfer is in flight */
    uint8_t failed; /* transfers in a row */
    uint8_t kind;   /* of sensor */
    uint8_t probe;  /* address and kind that is tried, or setting that is written */
    uint8_t address;
    uint8_t running; /* `before` is valid */
    uint8_t reserved;
} drip_imu_t;

/* Prepares a sensor.
 *
 * Memory: `bus` and `samples` stay valid, (window + hop) * DRIP_IMU_AXES of them: a complete window
 * waits until the next one is complete, too. `config` is copied.
 * Returns DRIP_ERR_OK or _ARGUMENT. */
int drip_imu_init(drip_imu_t *imu, const drip_imu_bus_t *bus, const drip_imu_config_t *config,
                  int16_t *samples);

/* Does a piece of work: starts or polls one transfer. Call it at least every 5 ms. */
void drip_imu_step(drip_imu_t *imu);

/* Makes the sensor that of a port, whose other functions do not need its context. */
void drip_imu_attach(drip_imu_t *imu, drip_port_t *port);

/* Hands over a complete window, for sensor_poll of drip/port.h. Returns 1 and the frame, or 0. */
int drip_imu_take(drip_imu_t *imu, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame);

/* For sensor_stream of drip/port.h. */
void drip_imu_stream(const drip_imu_t *imu, drip_stream_t *stream);

/* Returns 1 while a sensor delivers samples. */
int drip_imu_present(const drip_imu_t *imu);

#endif
