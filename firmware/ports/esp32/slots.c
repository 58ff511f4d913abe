/* The owner's side of the model slots: four areas in one piece of memory, whoever stands behind it. */
#include "board.h"

enum { AREAS = 4, SLOTS = 2 };

static slots_t slots;

static uint32_t area_bytes(int area)
{
    return area < SLOTS ? slots.slot_bytes : slots.journal_bytes;
}

static uint32_t area_offset(int area)
{
    return area < SLOTS ? (uint32_t)area * slots.slot_bytes
                        : SLOTS * slots.slot_bytes + (uint32_t)(area - SLOTS) * slots.journal_bytes;
}

static const uint8_t *flash_map(void *context, int area)
{
    (void)context;
    return area < 0 || area >= AREAS ? NULL : slots.map + area_offset(area);
}

static int flash_erase(void *context, int area)
{
    if (flash_map(context, area) == NULL) {
        return DRIP_ERR_ARGUMENT;
    }
    return worker_post(JOB_FLASH_ERASE, area_offset(area), NULL, area_bytes(area));
}

static int flash_write(void *context, int area, uint32_t offset, const uint8_t *data, uint32_t size)
{
    if (flash_map(context, area) == NULL || offset % 16 != 0 || size % 16 != 0 ||
        offset > area_bytes(area) || size > area_bytes(area) - offset) {
        return DRIP_ERR_ARGUMENT;
    }
    return worker_post(JOB_FLASH_WRITE, area_offset(area) + offset, (void *)(uintptr_t)data, size);
}

static int flash_poll(void *context)
{
    (void)context;
    return worker_flash_poll();
}

void slots_attach(drip_port_t *port)
{
    if (slots_open(&slots) != DRIP_ERR_OK) {
        return;
    }
    port->flash_map = flash_map;
    port->slot_bytes = slots.slot_bytes;
    port->journal_bytes = slots.journal_bytes;
    port->flash_erase = flash_erase;
    port->flash_write = flash_write;
    port->flash_poll = flash_poll;
}
