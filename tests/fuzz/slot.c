/* Anything at all in the flash where slots and their journal are expected: opening, pushing a model,
 * trial, confirmation, and opening again.
 *
 * The input is a mode, the requests (8 bytes), both journal areas, then what is in the slots. */
#include "drip/slot.h"

#include "blob.h"
#include "board.h"

enum {
    MODE_RAW = 1, /* the checksums stay as they are */

    SLOT_BYTES = 4096,
    JOURNAL_BYTES = 5 * DRIP_SLOT_ENTRY_BYTES + 32,
    REQUESTS = 8,
    CHUNK_BYTES = DRIP_MAX_CHUNK_BYTES,
    ARENA_BYTES = 1 << 16,
    STEPS = 1000,
};

static void fix_journal(uint8_t *area)
{
    uint32_t at;

    for (at = 0; at + DRIP_SLOT_ENTRY_BYTES <= JOURNAL_BYTES; at += DRIP_SLOT_ENTRY_BYTES) {
        drip_slot_entry_t entry;
        drip_config_entry_t config;

        if (at + sizeof(config) <= JOURNAL_BYTES) {
            memcpy(&config, area + at, sizeof(config));
            if (config.magic == DRIP_CONFIG_MAGIC) {
                config.crc = drip_crc32(0, &config, sizeof(config) - sizeof(config.crc));
                memcpy(area + at, &config, sizeof(config));
            }
        }
        memcpy(&entry, area + at, sizeof(entry));
        if (entry.magic == DRIP_SLOT_MAGIC) {
            entry.crc = drip_crc32(0, &entry, sizeof(entry) - sizeof(entry.crc));
            memcpy(area + at, &entry, sizeof(entry));
        }
    }
}

/* Erased flash reads 0xFF; zeros behind the end of the input would not. */
static void fill(fuzz_input_t *input, uint8_t *area, uint32_t size)
{
    const size_t n = size < input->left ? size : input->left;

    fuzz_take(input, area, n);
}

static void open_slots(board_t *board, drip_slot_t *slot)
{
    drip_model_response_t info;
    drip_nn_t nn;
    const uint8_t *blob;
    uint32_t bytes;
    int i;
    const int opened = drip_slot_open(slot, &board->port, ARENA_BYTES, &nn);

    MUST(opened == DRIP_ERR_NO_MODEL || opened == 0 || opened == 1);
    if (opened >= 0) {
        uint8_t *arena = fuzz_block(nn.header.arena_bytes, 0);

        MUST(nn.header.arena_bytes <= ARENA_BYTES);
        MUST(drip_nn_bind(&nn, arena, nn.header.arena_bytes) == DRIP_ERR_OK);
        free(arena);
    }
    for (i = -1; i <= 2; i++) {
        if (drip_slot_blob(slot, i, &blob, &bytes) == DRIP_ERR_OK) {
            MUST(bytes <= SLOT_BYTES);
            (void)drip_crc32(0, blob, bytes);
        }
    }
    memset(&info, 0, sizeof(info));
    drip_slot_info(slot, &info);
    MUST(info.slot < 2 && info.offset <= info.slot_bytes);
}

static void finish(drip_slot_t *slot)
{
    uint32_t steps = STEPS;

    while (drip_slot_poll(slot) == DRIP_ERR_BUSY) {
        MUST(steps-- > 0);
    }
}

/* What an action asks for: mostly a step forward, sometimes too much, too far or an odd number. */
static uint32_t chunk_bytes(uint32_t value)
{
    if (value < 16) {
        return value == 1 ? 5 : DRIP_BLOB_HEADER_BYTES;
    }
    return value == 30 ? CHUNK_BYTES + 1 : (value - 15) * 64;
}

static void request(drip_slot_t *slot, uint8_t action, const uint8_t *chunk)
{
    drip_model_request_t asked;
    const uint32_t value = action >> 3;

    memset(&asked, 0, sizeof(asked));
    asked.op = action & 7;
    if (asked.op == 7) {
        (void)drip_slot_trial(slot, value & 1 ? DRIP_ERR_OK : DRIP_ERR_SELFTEST);
    } else {
        asked.total_bytes = DRIP_BLOB_HEADER_BYTES * (value + 2);
        asked.offset = value == 31 ? UINT32_MAX - 15 : slot->offset;
        asked.blob_crc = drip_crc32(0, chunk, DRIP_BLOB_HEADER_BYTES);
        (void)drip_slot_request(slot, &asked, chunk, chunk_bytes(value), ARENA_BYTES);
    }
    finish(slot);
    MUST(slot->target == DRIP_SLOT_NONE || slot->offset <= slot->entry[slot->target].blob_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t input = {data, size};
    const uint8_t mode = fuzz_u8(&input);
    uint8_t actions[REQUESTS];
    uint8_t *chunk = fuzz_block(CHUNK_BYTES, 0x3C);
    drip_slot_t slot;
    board_t board;
    int i;

    fuzz_take(&input, actions, sizeof(actions));
    board_init(&board);
    board_add_flash(&board, SLOT_BYTES, JOURNAL_BYTES);
    for (i = 2; i < BOARD_AREAS; i++) {
        fill(&input, board.flash[i], JOURNAL_BYTES);
        if (!(mode & MODE_RAW)) {
            fix_journal(board.flash[i]);
        }
    }
    for (i = 0; i < 2; i++) {
        fill(&input, board.flash[i], SLOT_BYTES);
    }
    open_slots(&board, &slot);
    for (i = 0; i < REQUESTS; i++) {
        request(&slot, actions[i], chunk);
    }
    open_slots(&board, &slot);
    free(chunk);
    board_free(&board);
    return 0;
}
