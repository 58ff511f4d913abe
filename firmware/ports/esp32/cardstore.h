/* Model slots on the card, and their journal in a store of small entries (NVS). Portable C11.
 *
 * Nothing can run from a card, so all of it is mirrored in RAM: `memory` holds slot 0, slot 1 and both halves of
 * the journal, as drip_port_t wants its four areas. Each change goes to the mirror and to its store.
 *
 * On the card the slots lie between the partition table and the first partition, where no file system
 * is: block 64 says that they are there, slot 0 begins at block 65. A card without a partition table
 * or room before the first partition, with a GUID partition table, or with something else at block 64 (it is
 * neither ours nor blank) is left alone, and the board has the models of the mirror only: none after a restart. */
#ifndef ESP32_CARDSTORE_H
#define ESP32_CARDSTORE_H

#include "drip/wire.h"

enum {
    CARDSTORE_ENTRIES = 8, /* of each half of the journal */
    CARDSTORE_JOURNAL_BYTES = CARDSTORE_ENTRIES * DRIP_SLOT_ENTRY_BYTES,
    CARDSTORE_FIRST_BLOCK = 64,
};

/* What waits for card and entries. Return DRIP_ERR_*. */
typedef struct {
    void *context;
    int (*read)(void *context, uint32_t block, uint8_t *data, uint32_t count);
    int (*write)(void *context, uint32_t block, const uint8_t *data, uint32_t count);
    /* Entries 0 to 2 * CARDSTORE_ENTRIES - 1, each DRIP_SLOT_ENTRY_BYTES and written whole or not at
     * all. `get` fills in 0xFF where there is none. */
    int (*get)(void *context, uint32_t entry, uint8_t *data);
    int (*set)(void *context, uint32_t entry, const uint8_t *data);
    int (*forget)(void *context, uint32_t entry);
} cardstore_io_t;

typedef struct {
    const cardstore_io_t *io;
    uint8_t *memory;
    uint32_t slot_bytes;
    uint8_t is_ours; /* the present card was looked at and may be written */
    uint8_t block[DRIP_BLOCK_BYTES];
} cardstore_t;

/* Bytes of `memory` for slots of `slot_bytes` each, a multiple of DRIP_BLOCK_BYTES. */
uint32_t cardstore_bytes(uint32_t slot_bytes);

/* Reads journal and slots into `memory`, aligned to DRIP_BLOB_ALIGN.
 *
 * Returns DRIP_ERR_OK, or why there are no slots: the card's error or DRIP_ERR_UNSUPPORTED. The journal is there all
 * the same, as far as it could be read, and models can be pushed once another card is in. */
int cardstore_open(cardstore_t *store, const cardstore_io_t *io, uint8_t *memory,
                   uint32_t slot_bytes);

/* The card may have been changed: an upload in progress fails. */
void cardstore_card_changed(cardstore_t *store);

/* Erase an area, or write to an erased part of it; `at` counts from the begin of `memory`. An erase looks at the
 * card again. Return DRIP_ERR_OK, _UNSUPPORTED (not our card), _STATE (another card since the erase), _ARGUMENT, or
 * the error of the store. */
int cardstore_erase(cardstore_t *store, uint32_t at, uint32_t count);
int cardstore_write(cardstore_t *store, uint32_t at, const uint8_t *data, uint32_t count);

#endif
