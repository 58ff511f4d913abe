/* The parts of the plugin stm32sd. */
#ifndef STM32SD_H
#define STM32SD_H

#include "qemu_internals.h"

enum { STATUS_CUT = 99, PORTS = 5, PAGE = 0x400, PRIORITY = 10 };

/* Shared with whoever started QEMU. */
struct control {
    uint32_t present; /* written by the other side */
    uint32_t resets;
    uint64_t spi_bytes;
    uint64_t flash_operations;
    uint64_t blocks_written;
    uint64_t blocks_read;
};

struct options {
    const char *card, *flash, *control, *id;
    uint64_t cut, flash_cut, csr;
    int cs_port, cs_bit;
};

extern struct options options;
extern struct control *control;

/* ---- stm32sd.c */

void fail(const char *what, const char *detail) __attribute__((noreturn));
/* Maps a file, made and enlarged to `bytes` unless 0. */
void *map_file(const char *path, uint64_t bytes, uint64_t *size);
/* Moves chip select of the card. */
void select_card(int on);
/* A cleared MemoryRegion. */
void *new_region(void);
void lay(uint64_t address, const memory_ops *ops, void *opaque, const char *name, uint64_t size);

/* How every register block here is read and written. */
#define OPS(name)                                                                                  \
    static const memory_ops name##_ops = {.read = name##_read,                                     \
                                          .write = name##_write,                                   \
                                          .endianness = DEVICE_LITTLE_ENDIAN,                      \
                                          .valid = {.min_access_size = 1, .max_access_size = 4},   \
                                          .impl = {.min_access_size = 1, .max_access_size = 4}}

/* ---- stm32chip.c: GPIO, clocks, power, flash, unique id */

void lay_chip(void);
void reset_chip(void);

#endif
