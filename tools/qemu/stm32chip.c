/* Arguments of the plugin, the card and its SPI are in stm32sd.c. */
#include "stm32sd.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FLASH_BYTES = 1 << 20 };

/* ------------------------------------------------------------------ GPIO */

enum { GPIO_MODER = 0x00, GPIO_PUPDR = 0x0C, GPIO_IDR = 0x10, GPIO_ODR = 0x14, GPIO_BSRR = 0x18 };

static uint32_t gpio[PORTS][10];

static void move_select(void)
{
    const uint32_t *port = gpio[options.cs_port];
    int is_output = (port[GPIO_MODER / 4] >> (2 * options.cs_bit) & 3) == 1;

    select_card(is_output && (port[GPIO_ODR / 4] >> options.cs_bit & 1) == 0);
}

static uint64_t gpio_read(void *opaque, uint64_t offset, unsigned size)
{
    const uint32_t *port = gpio[(intptr_t)opaque];

    (void)size;
    if (offset == GPIO_IDR) {
        uint32_t level = 0;

        for (int bit = 0; bit < 16; bit++) {
            int is_output = (port[GPIO_MODER / 4] >> (2 * bit) & 3) == 1;
            int pulled_up = (port[GPIO_PUPDR / 4] >> (2 * bit) & 3) == 1;
            int high = is_output ? (port[GPIO_ODR / 4] >> bit & 1) != 0 : pulled_up;

            level |= (uint32_t)high << bit;
        }
        return level;
    }
    return offset < sizeof(gpio[0]) ? port[offset / 4] : 0;
}

static void gpio_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    uint32_t *port = gpio[(intptr_t)opaque];

    (void)size;
    if (offset == GPIO_BSRR) {
        port[GPIO_ODR / 4] &= ~(uint32_t)(value >> 16);
        port[GPIO_ODR / 4] |= (uint32_t)(value & 0xFFFF);
    } else if (offset < sizeof(gpio[0])) {
        port[offset / 4] = (uint32_t)value;
    }
    move_select();
}

/* ------------------------------------------------------------------ clocks and power */

enum { RCC_CR = 0x00, RCC_CFGR = 0x08, RCC_CSR = 0x74, CSR_CLEAR = 1 << 24 };
enum { CSR_POWER_ON = 7 << 25, CSR_SOFTWARE = 1 << 28 | 1 << 26 };
enum { PWR_CSR = 0x04, PWR_CSR_READY = 1 << 14 };

static uint32_t rcc[PAGE / 4], pwr[2];

/* What is switched on is ready at once. */
static uint64_t rcc_read(void *opaque, uint64_t offset, unsigned size)
{
    uint32_t value = rcc[offset / 4];

    (void)opaque;
    (void)size;
    if (offset == RCC_CR) {
        const uint32_t enables = 1u << 0 | 1u << 16 | 1u << 24 | 1u << 26;

        return (value & ~(enables << 1)) | (value & enables) << 1;
    }
    return offset == RCC_CFGR ? (value & ~0xCu) | (value & 3) << 2 : value;
}

static void rcc_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)opaque;
    (void)size;
    if (offset == RCC_CSR && (value & CSR_CLEAR) != 0) {
        value = 0;
    }
    rcc[offset / 4] = (uint32_t)value;
}

static uint64_t pwr_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)size;
    return offset == PWR_CSR ? PWR_CSR_READY : offset == 0 ? pwr[0] : 0;
}

static void pwr_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)opaque;
    (void)size;
    if (offset == 0) {
        pwr[0] = (uint32_t)value;
    }
}

/* ------------------------------------------------------------------ flash */

enum { FLASH_ACR = 0x00, FLASH_KEYR = 0x04, FLASH_SR = 0x0C, FLASH_CR = 0x10, FLASH_OPTCR = 0x14 };
enum { KEY_1 = 0x45670123, KEY_2 = (int)0xCDEF89AB };
enum { FCR_PG = 1, FCR_SER = 2, FCR_SNB = 3, FCR_PSIZE = 8, FCR_STRT = 1 << 16 };
enum { FSR_EOP = 1, FSR_PGPERR = 1 << 6, FSR_PGSERR = 1 << 7 };
#define FCR_LOCK 0x80000000u

static struct {
    uint8_t *memory; /* what the processor sees */
    uint8_t *file;
    uint32_t acr, sr, cr, optcr, key;
} flash = {.cr = FCR_LOCK, .optcr = 0x0FFFAAED};

static void keep_flash(uint32_t offset, uint32_t size)
{
    if (flash.file != NULL) {
        memcpy(flash.file + offset, flash.memory + offset, size);
    }
}

/* Says whether the power fails in this operation. */
static int count_operation(void)
{
    control->flash_operations++;
    return options.flash_cut != 0 && control->flash_operations == options.flash_cut;
}

/* 4 sectors of 16 KiB, one of 64, seven of 128. */
static void erase_sector(uint32_t sector)
{
    uint32_t start, size;

    if (sector > 11) {
        flash.sr |= FSR_PGSERR;
        return;
    }
    start = sector < 4 ? sector * 0x4000 : sector == 4 ? 0x10000 : (sector - 4) * 0x20000;
    size = sector < 4 ? 0x4000 : sector == 4 ? 0x10000 : 0x20000;
    if (count_operation()) {
        memset(flash.memory + start, 0xFF, size / 2);
        keep_flash(start, size / 2);
        _exit(STATUS_CUT);
    }
    memset(flash.memory + start, 0xFF, size);
    keep_flash(start, size);
    flash.sr |= FSR_EOP;
}

static void array_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    uint32_t wanted = 1u << (flash.cr >> FCR_PSIZE & 3);

    (void)opaque;
    if ((flash.cr & (FCR_LOCK | FCR_PG)) != FCR_PG) {
        flash.sr |= FSR_PGSERR;
        return;
    }
    if (size != wanted || offset % size != 0) {
        flash.sr |= FSR_PGPERR;
        return;
    }
    if (count_operation()) {
        value |= 0xF0F0F0F0; /* half of the bits got through */
    }
    for (unsigned i = 0; i < size; i++) {
        flash.memory[offset + i] &= (uint8_t)(value >> (8 * i));
    }
    keep_flash((uint32_t)offset, size);
    if (options.flash_cut != 0 && control->flash_operations == options.flash_cut) {
        _exit(STATUS_CUT);
    }
    flash.sr |= FSR_EOP;
}

static uint64_t array_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    (void)opaque;
    memcpy(&value, flash.memory + offset, size);
    return value;
}

static uint64_t flash_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)size;
    switch (offset) {
    case FLASH_ACR:
        return flash.acr;
    case FLASH_SR:
        return flash.sr;
    case FLASH_CR:
        return flash.cr;
    case FLASH_OPTCR:
        return flash.optcr;
    default:
        return 0;
    }
}

static void flash_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    uint32_t word = (uint32_t)value;

    (void)opaque;
    (void)size;
    if (offset == FLASH_ACR) {
        flash.acr = word;
    } else if (offset == FLASH_SR) {
        flash.sr &= ~word; /* ones clear */
    } else if (offset == FLASH_KEYR) {
        if (flash.key == (uint32_t)KEY_1 && word == (uint32_t)KEY_2) {
            flash.cr &= ~FCR_LOCK;
        }
        flash.key = word;
    } else if (offset == FLASH_OPTCR) {
        flash.optcr = word;
    } else if (offset == FLASH_CR && (flash.cr & FCR_LOCK) == 0) {
        flash.cr = word & ~(uint32_t)FCR_STRT;
        if ((word & FCR_STRT) != 0 && (word & FCR_SER) != 0) {
            erase_sector(word >> FCR_SNB & 15);
        }
    }
}

/* ------------------------------------------------------------------ unique id */

static uint64_t id_read(void *opaque, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    size_t length = strlen(options.id) / 2;

    (void)opaque;
    for (unsigned i = 0; i < size; i++) {
        unsigned byte = 0xFF;

        if (offset + i < length) {
            sscanf(options.id + 2 * (offset + i), "%2x", &byte);
        }
        value |= (uint64_t)byte << (8 * i);
    }
    return value;
}

static void id_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)opaque;
    (void)offset;
    (void)value;
    (void)size;
}

/* ------------------------------------------------------------------ together */

OPS(gpio);
OPS(rcc);
OPS(pwr);
OPS(flash);
OPS(id);
OPS(array);

/* The machine's own flash cannot be written. The image is loaded after this, at reset. */
static void lay_flash(void)
{
    void *region = new_region(), *at_zero = new_region(), *error = NULL;
    uint64_t size;

    memory_region_init_rom_device_nomigrate(region, NULL, &array_ops, NULL, "stm32sd.flash",
                                            FLASH_BYTES, &error);
    if (error != NULL) {
        fail("no memory", "for the flash");
    }
    flash.memory = memory_region_get_ram_ptr(region);
    memset(flash.memory, 0xFF, FLASH_BYTES);
    if (options.flash != NULL) {
        int is_new = access(options.flash, F_OK) != 0;

        flash.file = map_file(options.flash, FLASH_BYTES, &size);
        if (is_new) {
            memset(flash.file, 0xFF, FLASH_BYTES);
        }
        memcpy(flash.memory, flash.file, FLASH_BYTES);
    }
    memory_region_add_subregion_overlap(get_system_memory(), 0x08000000, region, PRIORITY);
    memory_region_init_alias(at_zero, NULL, "stm32sd.boot", region, 0, FLASH_BYTES);
    memory_region_add_subregion_overlap(get_system_memory(), 0, at_zero, PRIORITY);
}

void reset_chip(void)
{
    memset(gpio, 0, sizeof(gpio));
    memset(rcc, 0, sizeof(rcc));
    rcc[RCC_CR / 4] = 0x83;
    rcc[RCC_CSR / 4] = options.csr != 0 ? (uint32_t)options.csr : CSR_SOFTWARE;
    if (control->resets == 0) {
        rcc[RCC_CSR / 4] = CSR_POWER_ON;
    }
    flash.cr = FCR_LOCK;
    flash.sr = flash.acr = flash.key = 0;
    move_select();
}

void lay_chip(void)
{
    static const char *names[PORTS] = {"gpioa", "gpiob", "gpioc", "gpiod", "gpioe"};

    for (intptr_t port = 0; port < PORTS; port++) {
        lay(0x40020000 + PAGE * (uint64_t)port, &gpio_ops, (void *)port, names[port], PAGE);
    }
    lay(0x40023800, &rcc_ops, NULL, "stm32sd.rcc", PAGE);
    lay(0x40023C00, &flash_ops, NULL, "stm32sd.flash-interface", PAGE);
    lay(0x40007000, &pwr_ops, NULL, "stm32sd.pwr", PAGE);
    lay(0x1FFF7A10, &id_ops, NULL, "stm32sd.id", 12);
    lay_flash();
}
