#define _GNU_SOURCE
#include "chip_bench.h"

#include <stddef.h>
#include <sys/mman.h>

enum { WINDOWS = 8 };

static struct {
    uintptr_t start, end;
} windows[WINDOWS];
static int window_count;
static void (*watcher)(uint32_t address, int is_write);

int chip_uart_idle = 1;
uint32_t chip_watchdog_kicks;

int i2c_read(void *context, uint8_t address, uint8_t reg, uint8_t *data, uint32_t size);
int i2c_write(void *context, uint8_t address, uint8_t reg, uint8_t value);
int i2c_poll(void *context);
int uart_idle(void);
void system_watchdog(void *context);
void restart_clock(void);
void restart_flash(void);
void restart_i2c(void);
void restart_uart(void);

int chip_map(uint32_t start, uint32_t bytes, int is_mapped)
{
    void *wanted = (void *)(uintptr_t)start;

    if (window_count == WINDOWS) {
        return 0;
    }
    if (!is_mapped && mmap(wanted, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != wanted) {
        return 0;
    }
    windows[window_count].start = start;
    windows[window_count].end = (uintptr_t)start + bytes;
    window_count++;
    return 1;
}

void chip_watch(void (*access)(uint32_t address, int is_write))
{
    watcher = access;
}

void chip_restart(void)
{
    restart_clock();
    restart_flash();
    restart_i2c();
    restart_uart();
}

int uart_idle(void)
{
    return chip_uart_idle;
}

void system_watchdog(void *context)
{
    (void)context;
    chip_watchdog_kicks++;
}

static uint64_t time_us(void *context)
{
    (void)context;
    return clock_micros();
}

drip_imu_bus_t chip_imu_bus = {
    .read = i2c_read,
    .write = i2c_write,
    .poll = i2c_poll,
    .time_us = time_us,
};

/* ------------------------------------------------------------------ what the compiler calls */

static void accessed(const void *at, int is_write)
{
    uintptr_t address = (uintptr_t)at;
    int i;

    for (i = 0; i < window_count && watcher != NULL; i++) {
        if (address >= windows[i].start && address < windows[i].end) {
            watcher((uint32_t)address, is_write);
            return;
        }
    }
}

#define VOLATILE(size)                                                                             \
    void __tsan_volatile_read##size(void *at);                                                     \
    void __tsan_volatile_write##size(void *at);                                                    \
    void __tsan_volatile_read##size(void *at)                                                      \
    {                                                                                              \
        accessed(at, 0);                                                                           \
    }                                                                                              \
    void __tsan_volatile_write##size(void *at)                                                     \
    {                                                                                              \
        accessed(at, 1);                                                                           \
    }
#define OTHER(size)                                                                                \
    void __tsan_read##size(void *at);                                                              \
    void __tsan_write##size(void *at);                                                             \
    void __tsan_read##size(void *at)                                                               \
    {                                                                                              \
        (void)at;                                                                                  \
    }                                                                                              \
    void __tsan_write##size(void *at)                                                              \
    {                                                                                              \
        (void)at;                                                                                  \
    }

/* clang-format off */
VOLATILE(1)
VOLATILE(2)
VOLATILE(4)
VOLATILE(8)
OTHER(1)
OTHER(2)
OTHER(4)
OTHER(8)
OTHER(16)
/* clang-format on */

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_read_range(void *at, size_t size);
void __tsan_write_range(void *at, size_t size);

void __tsan_init(void)
{
}

void __tsan_func_entry(void *caller)
{
    (void)caller;
}

void __tsan_func_exit(void)
{
}

void __tsan_read_range(void *at, size_t size)
{
    (void)at;
    (void)size;
}

void __tsan_write_range(void *at, size_t size)
{
    (void)at;
    (void)size;
}
