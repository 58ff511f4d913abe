/* Model slots and their journal in the data partition `drip`, mapped into memory: models run in place. The journal
 * holds the settings, too, so nothing is kept in NVS. */
#include "board.h"
#include "esp_partition.h"

#include <string.h>

enum { AREAS = 4, SLOTS = 2, JOURNAL_BYTES = 16 * 1024, SUBTYPE = 0x40 };

static const esp_partition_t *partition;
static const uint8_t *map;

static uint32_t slot_bytes(void)
{
    return (partition->size - 2 * JOURNAL_BYTES) / SLOTS / partition->erase_size *
           partition->erase_size;
}

static uint32_t area_bytes(int area)
{
    return area < SLOTS ? slot_bytes() : JOURNAL_BYTES;
}

static uint32_t area_offset(int area)
{
    return area < SLOTS ? (uint32_t)area * slot_bytes()
                        : SLOTS * slot_bytes() + (uint32_t)(area - SLOTS) * JOURNAL_BYTES;
}

/* ------------------------------------------------------------------ task `card` */

static int is_erased(const uint8_t *at, uint32_t size)
{
    while (size > 0 && *at == 0xFF) {
        at++;
        size--;
    }
    return size == 0;
}

/* Sector by sector: what is erased already is left so, and other tasks run in between. */
static int erase(uint32_t at, uint32_t count)
{
    const uint32_t sector = partition->erase_size;

    for (uint32_t end = at + count; at < end; at += sector) {
        if (is_erased(map + at, sector)) {
            continue;
        }
        if (esp_partition_erase_range(partition, at, sector) != ESP_OK ||
            !is_erased(map + at, sector)) {
            return DRIP_ERR_IO;
        }
    }
    return DRIP_ERR_OK;
}

int slots_work(uint8_t kind, uint32_t at, const uint8_t *data, uint32_t count)
{
    if (kind == JOB_FLASH_ERASE) {
        return erase(at, count);
    }
    /* The driver drops what the cache holds of these bytes, so the map shows what was written. */
    return esp_partition_write(partition, at, data, count) == ESP_OK &&
                   memcmp(map + at, data, count) == 0
               ? DRIP_ERR_OK
               : DRIP_ERR_IO;
}

/* ------------------------------------------------------------------ owner */

static const uint8_t *flash_map(void *context, int area)
{
    (void)context;
    return area < 0 || area >= AREAS ? NULL : map + area_offset(area);
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
    esp_partition_mmap_handle_t handle;
    const void *address;

    partition =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, (esp_partition_subtype_t)SUBTYPE, "drip");
    if (partition == NULL || partition->erase_size == 0 ||
        JOURNAL_BYTES % partition->erase_size != 0 ||
        partition->size < 2 * JOURNAL_BYTES + SLOTS * partition->erase_size ||
        esp_partition_mmap(partition, 0, partition->size, ESP_PARTITION_MMAP_DATA, &address,
                           &handle) != ESP_OK) {
        return;
    }
    map = address;
    port->flash_map = flash_map;
    port->slot_bytes = slot_bytes();
    port->journal_bytes = JOURNAL_BYTES;
    port->flash_erase = flash_erase;
    port->flash_write = flash_write;
    port->flash_poll = flash_poll;
}
