/* Model slots and their journal in the data partition `drip`, mapped into memory: models run in place. The journal
 * holds the settings, too. */
#include "board.h"

#if !BOARD_SLOTS_CARD

#include "esp_partition.h"

#include <string.h>

enum { SLOTS = 2, JOURNAL_BYTES = 16 * 1024, SUBTYPE = 0x40 };

static const esp_partition_t *partition;
static const uint8_t *map;

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

void slots_card_changed(void)
{
}

int slots_open(slots_t *slots)
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
        return DRIP_ERR_UNSUPPORTED;
    }
    map = address;
    slots->map = map;
    slots->slot_bytes = (partition->size - 2 * JOURNAL_BYTES) / SLOTS / partition->erase_size *
                        partition->erase_size;
    slots->journal_bytes = JOURNAL_BYTES;
    return DRIP_ERR_OK;
}

#endif
