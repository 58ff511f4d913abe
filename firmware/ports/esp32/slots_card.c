/* Model slots on the card, mirrored in RAM; their journal, which holds the settings, too, in NVS. */
#include "board.h"

#if BOARD_SLOTS_CARD

#include "cardstore.h"
#include "esp_heap_caps.h"
#include "nvs.h"
#include "nvs_flash.h"

#include <string.h>

_Static_assert(BOARD_SLOT_BYTES % DRIP_BLOCK_BYTES == 0, "slots are whole blocks");

static cardstore_t store;
static nvs_handle_t journal;

static int code_of(esp_err_t error)
{
    return error == ESP_OK ? DRIP_ERR_OK : DRIP_ERR_IO;
}

static void name_of(uint32_t entry, char name[4])
{
    name[0] = 'e';
    name[1] = (char)('0' + entry / 10);
    name[2] = (char)('0' + entry % 10);
    name[3] = 0;
}

static int read_blocks(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    (void)context;
    return card_work(JOB_CARD_READ, block, data, count);
}

static int write_blocks(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    (void)context;
    return card_work(JOB_CARD_WRITE, block, (uint8_t *)(uintptr_t)data, count);
}

static int get_entry(void *context, uint32_t entry, uint8_t *data)
{
    size_t size = DRIP_SLOT_ENTRY_BYTES;
    char name[4];
    esp_err_t error;

    (void)context;
    name_of(entry, name);
    error = nvs_get_blob(journal, name, data, &size);
    if (error == ESP_ERR_NVS_NOT_FOUND) {
        memset(data, 0xFF, DRIP_SLOT_ENTRY_BYTES);
        return DRIP_ERR_OK;
    }
    return error == ESP_OK && size != DRIP_SLOT_ENTRY_BYTES ? DRIP_ERR_CORRUPT : code_of(error);
}

static int set_entry(void *context, uint32_t entry, const uint8_t *data)
{
    char name[4];
    esp_err_t error;

    (void)context;
    name_of(entry, name);
    error = nvs_set_blob(journal, name, data, DRIP_SLOT_ENTRY_BYTES);
    return code_of(error == ESP_OK ? nvs_commit(journal) : error);
}

static int forget_entry(void *context, uint32_t entry)
{
    char name[4];
    esp_err_t error;

    (void)context;
    name_of(entry, name);
    error = nvs_erase_key(journal, name);
    if (error == ESP_ERR_NVS_NOT_FOUND) {
        return DRIP_ERR_OK;
    }
    return code_of(error == ESP_OK ? nvs_commit(journal) : error);
}

static const cardstore_io_t io = {
    .read = read_blocks,
    .write = write_blocks,
    .get = get_entry,
    .set = set_entry,
    .forget = forget_entry,
};

int slots_work(uint8_t kind, uint32_t at, const uint8_t *data, uint32_t count)
{
    return kind == JOB_FLASH_ERASE ? cardstore_erase(&store, at, count)
                                   : cardstore_write(&store, at, data, count);
}

void slots_card_changed(void)
{
    cardstore_card_changed(&store);
}

static esp_err_t open_journal(void)
{
    esp_err_t error = nvs_flash_init();

    /* What an older or newer ESP-IDF left there cannot be read: begin anew. */
    if (error == ESP_ERR_NVS_NO_FREE_PAGES || error == ESP_ERR_NVS_NEW_VERSION_FOUND) {
        error = nvs_flash_erase();
        if (error == ESP_OK) {
            error = nvs_flash_init();
        }
    }
    return error == ESP_OK ? nvs_open("drip", NVS_READWRITE, &journal) : error;
}

/* Before the tasks start, so it may wait for the card: a second without one. */
int slots_open(slots_t *slots)
{
    uint32_t bytes = cardstore_bytes(BOARD_SLOT_BYTES);
    uint8_t *memory = heap_caps_aligned_alloc(DRIP_BLOB_ALIGN, bytes, MALLOC_CAP_SPIRAM);

    if (memory == NULL) {
        memory = heap_caps_aligned_alloc(DRIP_BLOB_ALIGN, bytes, MALLOC_CAP_8BIT);
    }
    if (memory == NULL || open_journal() != ESP_OK) {
        return DRIP_ERR_MEMORY;
    }
    card_work(JOB_CARD_START, 0, NULL, 0);
    (void)cardstore_open(&store, &io, memory, BOARD_SLOT_BYTES);
    slots->map = memory;
    slots->slot_bytes = BOARD_SLOT_BYTES;
    slots->journal_bytes = CARDSTORE_JOURNAL_BYTES;
    return DRIP_ERR_OK;
}

#endif
