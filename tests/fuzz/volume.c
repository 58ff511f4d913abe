/* Anything at all where a file system is expected: the search for log files ends, and names a place on
 * the card.
 *
 * The input is a mode, the size of the card in blocks (u32), the first block of a table of chains (u32),
 * then pieces of blocks: number (u32), offset (u16), length (u8), bytes. A block without a piece is
 * zero, or a table in which each cluster is followed by the next. Checksums of exFAT entry sets are put
 * right unless the mode says otherwise. */
#include "drip/bytes.h"
#include "drip/volume.h"

#include "fuzz.h"

enum {
    MODE_RAW = 1,       /* the checksums stay as they are */
    MODE_CHAIN16 = 2,   /* unnamed blocks from the table on are chains of 16 bits */
    MODE_CHAIN32 = 4,   /* or of 32 bits */
    MODE_BUSY = 8,      /* transfers take a poll */
    MODE_FAULTS = 0xF0, /* one transfer in so many fails */

    CARD_LIMIT = 1 << 21,
    BLOCKS = 32,
    ENTRY_BYTES = 32,
    SET_FILE = 0x85,
    /* Files times blocks of a directory and of its chain, twice, for each partition; then the chains. */
    STEPS = 4 * 100 * 2 * 4096 * 2 + 1000000,
};

typedef struct {
    drip_port_t port;
    uint8_t mode;
    uint32_t blocks;
    uint32_t table;
    uint32_t used;
    uint32_t number[BLOCKS];
    uint8_t content[BLOCKS][DRIP_BLOCK_BYTES];
    uint8_t *data;
    uint32_t at;
    uint32_t transfers;
    uint32_t watched; /* a block, and how often it was read */
    uint32_t looks;
    uint8_t busy;
    uint8_t waits;
} card_t;

static uint8_t *find_block(card_t *card, uint32_t number)
{
    uint32_t i;

    for (i = 0; i < card->used; i++) {
        if (card->number[i] == number) {
            return card->content[i];
        }
    }
    return NULL;
}

static void fill_chain(uint8_t *data, uint32_t entry, uint32_t bytes)
{
    uint32_t at;

    for (at = 0; at < DRIP_BLOCK_BYTES; at += bytes) {
        entry++;
        memcpy(data + at, &entry, bytes); /* the low bytes come first, as on the card */
    }
}

static void load(card_t *card, uint32_t number, uint8_t *data)
{
    const uint8_t *named = find_block(card, number);

    memset(data, 0, DRIP_BLOCK_BYTES);
    if (named != NULL) {
        memcpy(data, named, DRIP_BLOCK_BYTES);
    } else if (number >= card->table && (card->mode & MODE_CHAIN16)) {
        fill_chain(data, (number - card->table) * 256, 2);
    } else if (number >= card->table && (card->mode & MODE_CHAIN32)) {
        fill_chain(data, (number - card->table) * 128, 4);
    }
}

/* ---------------------------------------------------------------- port */

static int card_blocks(void *context, uint32_t *blocks)
{
    *blocks = ((card_t *)context)->blocks;
    return DRIP_ERR_OK;
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    card_t *card = context;

    MUST(!card->busy && count == 1 && block < card->blocks);
    card->busy = 1;
    card->waits = (card->mode & MODE_BUSY) != 0;
    card->at = block;
    card->data = data;
    card->transfers++;
    card->looks += block == card->watched;
    return DRIP_ERR_OK;
}

static int card_poll(void *context)
{
    card_t *card = context;
    const uint32_t faults = (uint32_t)(card->mode & MODE_FAULTS) >> 4;

    MUST(card->busy);
    if (card->waits > 0) {
        card->waits--;
        return DRIP_ERR_BUSY;
    }
    card->busy = 0;
    if (faults != 0 && card->transfers % (faults * 5) == 0) {
        return DRIP_ERR_IO;
    }
    load(card, card->at, card->data);
    return DRIP_ERR_OK;
}

/* ---------------------------------------------------------------- the input */

static void fix_sets(uint8_t *block)
{
    uint32_t at;

    for (at = 0; at < DRIP_BLOCK_BYTES; at += ENTRY_BYTES) {
        const uint32_t entries = block[at + 1] + 1u;
        uint32_t sum = 0;
        uint32_t i;

        if (block[at] != SET_FILE || entries * ENTRY_BYTES > DRIP_BLOCK_BYTES - at) {
            continue;
        }
        for (i = 0; i < entries * ENTRY_BYTES; i++) {
            if (i != 2 && i != 3) {
                sum = ((sum << 15 | sum >> 1) + block[at + i]) & 0xffff;
            }
        }
        block[at + 2] = (uint8_t)sum;
        block[at + 3] = (uint8_t)(sum >> 8);
    }
}

static void take_pieces(card_t *card, fuzz_input_t *input)
{
    uint32_t i;

    while (input->left > 0) {
        uint32_t number;
        uint32_t offset;
        uint32_t size;
        uint8_t *block;

        fuzz_take(input, &number, sizeof(number));
        offset = fuzz_u16(input) % DRIP_BLOCK_BYTES;
        size = fuzz_u8(input);
        block = find_block(card, number);
        if (block == NULL) {
            if (card->used == BLOCKS) {
                break;
            }
            block = card->content[card->used];
            load(card, number, block);
            card->number[card->used++] = number;
        }
        fuzz_take(input, block + offset,
                  size < DRIP_BLOCK_BYTES - offset ? size : DRIP_BLOCK_BYTES - offset);
    }
    for (i = 0; i < card->used && !(card->mode & MODE_RAW); i++) {
        fix_sets(card->content[i]);
    }
}

/* ---------------------------------------------------------------- search */

static int search(card_t *card, drip_volume_t *volume)
{
    uint8_t *block = fuzz_block(DRIP_BLOCK_BYTES, 0xA5);
    uint32_t steps = STEPS;
    int result;

    card->transfers = 0;
    drip_volume_start(volume, &card->port, block);
    do {
        MUST(steps-- > 0);
        result = drip_volume_step(volume);
    } while (result == DRIP_ERR_BUSY);
    MUST(!card->busy && result <= DRIP_ERR_OK);
    if (result == DRIP_ERR_OK) {
        MUST(volume->first_block < card->blocks);
        MUST(volume->blocks <= card->blocks - volume->first_block);
        MUST(volume->place.blocks == volume->blocks);
    }
    free(block);
    return result;
}

/* A log that has noted its place is found there again. */
static void search_known(card_t *card, const drip_volume_t *found)
{
    drip_superblock_t super;
    drip_volume_t again;
    uint8_t *block = find_block(card, found->first_block);

    card->watched = found->first_block;
    card->looks = 0;
    MUST(search(card, &again) == DRIP_ERR_OK);
    /* More than one look for a superblock: its place is that of a directory or a chain, too. */
    if (block == NULL && card->used < BLOCKS && card->looks <= 1) {
        card->number[card->used] = found->first_block;
        block = card->content[card->used++];
        memset(&super, 0, sizeof(super));
        super.magic = DRIP_SUPERBLOCK_MAGIC;
        super.volume_serial = found->place.serial;
        super.volume_cluster = found->place.cluster;
        super.volume_blocks = found->place.blocks;
        super.volume_check = found->place.check;
        super.crc = drip_crc32(0, &super, sizeof(super) - sizeof(super.crc));
        memcpy(block, &super, sizeof(super));
        MUST(search(card, &again) == DRIP_ERR_OK);
        MUST(memcmp(&again.place, &found->place, sizeof(again.place)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t input = {data, size};
    card_t *card = (card_t *)(void *)fuzz_block(sizeof(*card), 0);
    drip_volume_t volume;

    card->port.context = card;
    card->port.card_blocks = card_blocks;
    card->port.card_read = card_read;
    card->port.card_poll = card_poll;
    card->mode = fuzz_u8(&input);
    fuzz_take(&input, &card->blocks, sizeof(card->blocks));
    card->blocks %= CARD_LIMIT;
    fuzz_take(&input, &card->table, sizeof(card->table));
    take_pieces(card, &input);
    if (search(card, &volume) == DRIP_ERR_OK && volume.blocks != 0 && !(card->mode & MODE_FAULTS)) {
        search_known(card, &volume);
    }
    free(card);
    return 0;
}
