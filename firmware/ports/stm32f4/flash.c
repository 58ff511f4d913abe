/* Model slots and their journal in sectors of the chip's own flash (RM0090, chapter 3).
 *
 * There is one bank: while it erases or programs, every fetch from it waits, and with it the whole
 * processor, interrupts included. So an erase begins only after the line has sent what it had to, and the
 * time that passed is put right from a timer. */
#include "board.h"
#include "stm32f4.h"

#include <string.h>

enum {
    AREAS = 4,
    SLOTS = 2,
    JOURNAL_BYTES = 16 * 1024,
    WORD = 4,
    SPINS_BUSY = 100000000, /* each look may wait for as long as flash is busy */
};
#define FLASH_KEY_1  0x45670123U
#define FLASH_KEY_2  0xCDEF89ABU
#define OPTION_KEY_1 0x08192A3BU
#define OPTION_KEY_2 0x4C5D6E7FU
#define FLASH_ORIGIN 0x08000000U

extern const uint8_t slots_start[], slots_end[], journal_start[];

/* The erase in progress: what is left of it. */
static struct {
    const uint8_t *at;
    const uint8_t *end;
    int result;
} work;

static uint32_t slot_bytes(void)
{
    return (ADDRESS(slots_end) - ADDRESS(slots_start)) / SLOTS;
}

static uint32_t area_bytes(int area)
{
    return area < SLOTS ? slot_bytes() : JOURNAL_BYTES;
}

static const uint8_t *flash_map(void *context, int area)
{
    (void)context;
    if (area < 0 || area >= AREAS) {
        return NULL;
    }
    return area < SLOTS ? slots_start + (uint32_t)area * slot_bytes()
                        : journal_start + (area - SLOTS) * JOURNAL_BYTES;
}

/* Four sectors of 16 KiB, one of 64, the others of 128. */
static uint32_t sector_of(const uint8_t *at)
{
    uint32_t offset = (uint32_t)at - FLASH_ORIGIN;

    return offset < 0x10000 ? offset / 0x4000 : offset < 0x20000 ? 4 : 4 + offset / 0x20000;
}

static uint32_t sector_bytes(uint32_t sector)
{
    return sector < 4 ? 0x4000 : sector == 4 ? 0x10000 : 0x20000;
}

static int wait_ready(void)
{
    flash_regs_t *flash = FLASH_REGS;

    if (!clock_wait(&flash->SR, FLASH_SR_BSY, 0, SPINS_BUSY)) {
        return DRIP_ERR_TIMEOUT;
    }
    return (flash->SR & FLASH_SR_ERRORS) != 0 ? DRIP_ERR_IO : DRIP_ERR_OK;
}

static int open_for(uint32_t control)
{
    flash_regs_t *flash = FLASH_REGS;

    if (!clock_wait(&flash->SR, FLASH_SR_BSY, 0, SPINS_BUSY)) {
        return DRIP_ERR_TIMEOUT;
    }
    if (flash->CR & FLASH_CR_LOCK) {
        flash->KEYR = FLASH_KEY_1;
        flash->KEYR = FLASH_KEY_2;
    }
    flash->SR = FLASH_SR_ERRORS;
    flash->CR = control | FLASH_CR_PSIZE_X32;
    return flash->CR & FLASH_CR_LOCK ? DRIP_ERR_IO : DRIP_ERR_OK;
}

/* Locks, and forgets what the data cache still holds of before. */
static void close_flash(void)
{
    flash_regs_t *flash = FLASH_REGS;

    flash->CR = FLASH_CR_LOCK;
    flash->ACR &= ~(uint32_t)FLASH_ACR_DCEN;
    flash->ACR |= FLASH_ACR_DCRST;
    flash->ACR &= ~(uint32_t)FLASH_ACR_DCRST;
    flash->ACR |= FLASH_ACR_DCEN;
}

static int is_erased(const uint8_t *at, uint32_t size)
{
    const uint32_t *word = (const uint32_t *)at;
    const uint32_t *end = word + size / WORD;

    while (word < end && *word == 0xFFFFFFFFU) {
        word++;
    }
    return word == end;
}

static int erase_sector(uint32_t sector)
{
    int result = open_for(FLASH_CR_SER | sector << FLASH_CR_SNB_SHIFT);

    if (result == DRIP_ERR_OK) {
        system_watchdog(NULL);
        clock_stall_begin();
        FLASH_REGS->CR |= FLASH_CR_STRT;
        result = wait_ready();
        clock_stall_end();
    }
    close_flash();
    return result;
}

static int flash_erase(void *context, int area)
{
    work.at = flash_map(context, area);
    if (work.at == NULL) {
        return DRIP_ERR_ARGUMENT;
    }
    work.end = work.at + area_bytes(area);
    work.result = DRIP_ERR_OK;
    return DRIP_ERR_OK;
}

/* One sector per call. What is erased already is left so: it would take a second and wear it. */
static int flash_poll(void *context)
{
    uint32_t sector, bytes;

    (void)context;
    if (work.at == work.end || work.result < 0) {
        work.at = work.end;
        return work.result;
    }
    if (!uart_idle()) {
        return DRIP_ERR_BUSY;
    }
    sector = sector_of(work.at);
    bytes = sector_bytes(sector);
    if (!is_erased(work.at, bytes)) {
        work.result = erase_sector(sector);
        if (work.result == DRIP_ERR_OK && !is_erased(work.at, bytes)) {
            work.result = DRIP_ERR_IO;
        }
    }
    work.at += bytes;
    return work.at == work.end ? work.result : DRIP_ERR_BUSY;
}

static int program(const uint8_t *to, const uint8_t *data, uint32_t size)
{
    int result = open_for(FLASH_CR_PG);
    uint32_t i, word;

    for (i = 0; i < size && result == DRIP_ERR_OK; i += WORD) {
        memcpy(&word, data + i, WORD);
        *(volatile uint32_t *)((uint32_t)to + i) = word;
        result = wait_ready();
    }
    close_flash();
    return result == DRIP_ERR_OK && memcmp(to, data, size) != 0 ? DRIP_ERR_IO : result;
}

static int flash_write(void *context, int area, uint32_t offset, const uint8_t *data, uint32_t size)
{
    const uint8_t *base = flash_map(context, area);

    if (base == NULL || offset % 16 != 0 || size % 16 != 0 || offset > area_bytes(area) ||
        size > area_bytes(area) - offset) {
        return DRIP_ERR_ARGUMENT;
    }
    work.at = work.end;
    work.result = program(base + offset, data, size);
    return DRIP_ERR_OK;
}

void flash_attach(drip_port_t *port)
{
    port->flash_map = flash_map;
    port->slot_bytes = slot_bytes();
    port->journal_bytes = JOURNAL_BYTES;
    port->flash_erase = flash_erase;
    port->flash_write = flash_write;
    port->flash_poll = flash_poll;
    port->flash_stalls = 1;
}

/* An option of the chip, kept for good: it is written once in a board's life. */
void flash_protect_supply(void)
{
    flash_regs_t *flash = FLASH_REGS;
    uint32_t options = flash->OPTCR;
    uint32_t wanted = (options & ~(3U << FLASH_OPTCR_BOR_SHIFT)) | (uint32_t)BOARD_BROWN_OUT
                                                                       << FLASH_OPTCR_BOR_SHIFT;

    if (options == wanted) {
        return;
    }
    flash->OPTKEYR = OPTION_KEY_1;
    flash->OPTKEYR = OPTION_KEY_2;
    if (clock_wait(&flash->SR, FLASH_SR_BSY, 0, SPINS_BUSY)) {
        wanted &= ~(uint32_t)(FLASH_OPTCR_LOCK | FLASH_OPTCR_START);
        flash->OPTCR = wanted;
        flash->OPTCR = wanted | FLASH_OPTCR_START;
        clock_wait(&flash->SR, FLASH_SR_BSY, 0, SPINS_BUSY);
    }
    flash->OPTCR |= FLASH_OPTCR_LOCK;
}
