#include "cardstore.h"

#include <string.h>

enum { ENTRY = DRIP_SLOT_ENTRY_BYTES, BLOCK = DRIP_BLOCK_BYTES, BLANK = 0xFF, PIECE_BLOCKS = 16 };
enum { TABLE = 446, PARTITIONS = 4, PARTITION_BYTES = 16, GUID_TABLE = 0xEE };

static const char mark[8] = {'D', 'R', 'I', 'P', 'S', 'L', 'O', 'T'};

uint32_t cardstore_bytes(uint32_t slot_bytes)
{
    return 2 * slot_bytes + 2 * CARDSTORE_JOURNAL_BYTES;
}

static uint32_t u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* ------------------------------------------------------------------ the place on the card */

/* A boot sector is a volume without a table, however its bytes 446 to 509 read. */
static int has_room(const uint8_t *block, uint32_t end)
{
    int used = 0;

    if (block[510] != 0x55 || block[511] != 0xAA || block[0] == 0xEB || block[0] == 0xE9) {
        return 0;
    }
    for (int i = 0; i < PARTITIONS; i++) {
        const uint8_t *entry = block + TABLE + PARTITION_BYTES * i;

        if ((entry[0] & 0x7F) != 0 || entry[4] == GUID_TABLE ||
            (entry[4] != 0 && u32(entry + 8) < end)) {
            return 0;
        }
        used += entry[4] != 0;
    }
    return used != 0;
}

static int is_blank(const uint8_t *block)
{
    return (block[0] == 0 || block[0] == BLANK) && memcmp(block, block + 1, BLOCK - 1) == 0;
}

/* Looks whether slots may lie on this card. Returns 1 when they do, 0 when they can, or an error. */
static int look(cardstore_t *store)
{
    const cardstore_io_t *io = store->io;
    uint32_t end = CARDSTORE_FIRST_BLOCK + 1 + 2 * store->slot_bytes / BLOCK;
    int result = io->read(io->context, 0, store->block, 1);

    store->is_ours = 0;
    if (result < 0) {
        return result;
    }
    if (!has_room(store->block, end)) {
        return DRIP_ERR_UNSUPPORTED;
    }
    result = io->read(io->context, CARDSTORE_FIRST_BLOCK, store->block, 1);
    if (result < 0) {
        return result;
    }
    if (memcmp(store->block, mark, sizeof(mark)) == 0) {
        store->is_ours = 1;
        return 1;
    }
    return is_blank(store->block) ? 0 : DRIP_ERR_UNSUPPORTED;
}

static int claim(cardstore_t *store)
{
    const cardstore_io_t *io = store->io;
    int result = look(store);

    if (result == 0) {
        memset(store->block, 0, BLOCK);
        memcpy(store->block, mark, sizeof(mark));
        result = io->write(io->context, CARDSTORE_FIRST_BLOCK, store->block, 1);
        store->is_ours = result >= 0;
    }
    return result < 0 ? result : DRIP_ERR_OK;
}

/* ------------------------------------------------------------------ reading and writing */

/* Both: in pieces, so that a driver needs no large buffer of its own. */
static int read_slots(cardstore_t *store)
{
    const cardstore_io_t *io = store->io;
    uint32_t blocks = 2 * store->slot_bytes / BLOCK;

    for (uint32_t at = 0; at < blocks; at += PIECE_BLOCKS) {
        uint32_t count = blocks - at < PIECE_BLOCKS ? blocks - at : PIECE_BLOCKS;
        int result = io->read(io->context, CARDSTORE_FIRST_BLOCK + 1 + at,
                              store->memory + at * BLOCK, count);

        if (result < 0) {
            memset(store->memory, BLANK, 2 * store->slot_bytes);
            return result;
        }
    }
    return DRIP_ERR_OK;
}

static int write_slots(cardstore_t *store, uint32_t at, uint32_t size)
{
    const cardstore_io_t *io = store->io;
    uint32_t block = at / BLOCK, end = (at + size + BLOCK - 1) / BLOCK;

    while (block < end) {
        uint32_t count = end - block < PIECE_BLOCKS ? end - block : PIECE_BLOCKS;
        int result = io->write(io->context, CARDSTORE_FIRST_BLOCK + 1 + block,
                               store->memory + block * BLOCK, count);

        if (result < 0) {
            return result;
        }
        block += count;
    }
    return DRIP_ERR_OK;
}

int cardstore_open(cardstore_t *store, const cardstore_io_t *io, uint8_t *memory,
                   uint32_t slot_bytes)
{
    uint8_t *journal = memory + 2 * slot_bytes;
    int result;

    memset(store, 0, sizeof(*store));
    store->io = io;
    store->memory = memory;
    store->slot_bytes = slot_bytes;
    memset(memory, BLANK, cardstore_bytes(slot_bytes));
    for (uint32_t entry = 0; entry < 2 * CARDSTORE_ENTRIES; entry++) {
        if (io->get(io->context, entry, journal + entry * ENTRY) < 0) {
            memset(journal + entry * ENTRY, 0, ENTRY); /* no entry, and no free place */
        }
    }
    result = look(store);
    if (result < 0) {
        return result;
    }
    return result == 0 ? DRIP_ERR_OK : read_slots(store);
}

void cardstore_card_changed(cardstore_t *store)
{
    store->is_ours = 0;
}

/* ------------------------------------------------------------------ areas */

static int is_slot(const cardstore_t *store, uint32_t at)
{
    return at < 2 * store->slot_bytes;
}

static uint32_t entry_at(const cardstore_t *store, uint32_t at)
{
    return (at - 2 * store->slot_bytes) / ENTRY;
}

int cardstore_erase(cardstore_t *store, uint32_t at, uint32_t count)
{
    const cardstore_io_t *io = store->io;
    int result = DRIP_ERR_OK;

    if (at > cardstore_bytes(store->slot_bytes) ||
        count > cardstore_bytes(store->slot_bytes) - at) {
        return DRIP_ERR_ARGUMENT;
    }
    if (is_slot(store, at)) {
        result = claim(store);
        if (result < 0) {
            return result;
        }
        memset(store->memory + at, BLANK, count);
        return write_slots(store, at, count);
    }
    for (uint32_t end = at + count; at < end && result >= 0; at += ENTRY) {
        result = io->forget(io->context, entry_at(store, at));
        if (result >= 0) {
            memset(store->memory + at, BLANK, ENTRY);
        }
    }
    return result < 0 ? result : DRIP_ERR_OK;
}

int cardstore_write(cardstore_t *store, uint32_t at, const uint8_t *data, uint32_t count)
{
    const cardstore_io_t *io = store->io;
    int result;

    if (at > cardstore_bytes(store->slot_bytes) ||
        count > cardstore_bytes(store->slot_bytes) - at) {
        return DRIP_ERR_ARGUMENT;
    }
    if (is_slot(store, at)) {
        if (!store->is_ours) {
            return DRIP_ERR_STATE;
        }
        memcpy(store->memory + at, data, count);
        return write_slots(store, at, count);
    }
    if (at % ENTRY != 0 || count != ENTRY) {
        return DRIP_ERR_ARGUMENT;
    }
    result = io->set(io->context, entry_at(store, at), data);
    if (result >= 0) {
        memcpy(store->memory + at, data, ENTRY);
    }
    return result < 0 ? result : DRIP_ERR_OK;
}
