#include "drip/volume.h"

#include <string.h>

#include "drip/bytes.h"
#include "volume_internal.h"

void drip_volume_start(drip_volume_t *volume, const drip_port_t *port, uint8_t *block)
{
    memset(volume, 0, sizeof(*volume));
    volume->port = port;
    volume->block = block;
    volume->loaded = VOLUME_NONE;
    volume->stage = VOLUME_SIZE;
}

int drip_volume_need(drip_volume_t *volume, uint32_t block, int *result)
{
    const drip_port_t *port = volume->port;

    *result = DRIP_ERR_BUSY;
    if (volume->loaded == block) {
        return 1;
    }
    volume->loaded = VOLUME_NONE;
    if (block >= volume->card_blocks) {
        *result = DRIP_ERR_CORRUPT;
        return 0;
    }
    *result = port->card_read(port->context, block, volume->block, 1);
    if (*result >= 0) {
        volume->reading = 1;
        volume->loaded = block;
        *result = DRIP_ERR_BUSY;
    }
    return 0;
}

/* The log may lie on the card without a volume. */
static int raw(drip_volume_t *volume)
{
    volume->first_block = 0;
    volume->blocks = 0;
    memset(&volume->place, 0, sizeof(volume->place));
    return DRIP_ERR_OK;
}

static int size_step(drip_volume_t *volume)
{
    const drip_port_t *port = volume->port;
    int result = port->card_blocks(port->context, &volume->card_blocks);

    if (result < 0) {
        return result;
    }
    volume->stage = VOLUME_FIRST;
    return volume->card_blocks == 0 ? DRIP_ERR_NO_CARD : DRIP_ERR_BUSY;
}

/* ---------------------------------------------------------------- volumes */

static void volume_found(drip_volume_t *volume)
{
    uint32_t layout[5];

    layout[0] = volume->start;
    layout[1] = volume->fat;
    layout[2] = volume->heap;
    layout[3] = volume->clusters;
    layout[4] = volume->cluster_shift | (uint32_t)volume->kind << 8;
    volume->layout = drip_crc32(volume->place.serial, layout, sizeof(layout));
    volume->seen = 1;
    volume->walking = 0;
    drip_volume_search(volume);
}

static int first_step(drip_volume_t *volume)
{
    int result;

    if (!drip_volume_need(volume, 0, &result)) {
        return result;
    }
    if (volume_u32(volume->block) == DRIP_SUPERBLOCK_MAGIC) {
        return raw(volume);
    }
    volume->start = 0;
    volume->partition = 4;
    if (drip_volume_boot(volume)) {
        volume_found(volume);
        return DRIP_ERR_BUSY;
    }
    if (volume->block[510] != 0x55 || volume->block[511] != 0xaa) {
        return raw(volume);
    }
    volume->partition = 0;
    volume->stage = VOLUME_TABLE;
    return DRIP_ERR_BUSY;
}

static int type_is_known(uint32_t type)
{
    return type == 0x04 || type == 0x06 || type == 0x07 || type == 0x0b || type == 0x0c ||
           type == 0x0e;
}

static int table_step(drip_volume_t *volume)
{
    const uint8_t *entry;
    int result;

    if (volume->partition >= 4) {
        return volume->seen ? DRIP_ERR_MAGIC : raw(volume);
    }
    if (!drip_volume_need(volume, 0, &result)) {
        return result;
    }
    entry = volume->block + 446 + volume->partition * 16u;
    volume->partition++;
    volume->start = volume_u32(entry + 8);
    if ((entry[0] & 0x7f) == 0 && type_is_known(entry[4]) && volume->start > 0 &&
        volume->start < volume->card_blocks) {
        volume->stage = VOLUME_BOOT;
    }
    return DRIP_ERR_BUSY;
}

static int boot_step(drip_volume_t *volume)
{
    int result;

    if (!drip_volume_need(volume, volume->start, &result)) {
        return result;
    }
    volume->stage = VOLUME_TABLE;
    if (drip_volume_boot(volume)) {
        volume_found(volume);
    }
    return DRIP_ERR_BUSY;
}

/* ---------------------------------------------------------------- known places */

int drip_volume_files_end(drip_volume_t *volume)
{
    if (volume->file == 0) {
        volume->stage = VOLUME_TABLE; /* the next partition may have them */
        return DRIP_ERR_BUSY;
    }
    if (volume->walking) {
        /* What was compared is what was found before. */
        return volume->check == volume->place.check ? DRIP_ERR_OK : DRIP_ERR_IO;
    }
    volume->place.check = volume->check;
    volume->place.blocks = volume->blocks;
    volume->stage = VOLUME_CACHE_A;
    return volume->chained ? DRIP_ERR_BUSY : DRIP_ERR_OK;
}

static int is_known(const drip_volume_t *volume)
{
    const drip_superblock_t *super = (const drip_superblock_t *)(const void *)volume->block;

    return super->magic == DRIP_SUPERBLOCK_MAGIC && super->volume_serial == volume->place.serial &&
           super->volume_cluster == volume->place.cluster &&
           super->volume_blocks == volume->place.blocks &&
           super->volume_check == volume->place.check &&
           super->crc == drip_crc32(0, super, sizeof(*super) - sizeof(super->crc));
}

static void cache_missed(drip_volume_t *volume)
{
    if (volume->stage == VOLUME_CACHE_A) {
        volume->stage = VOLUME_CACHE_B;
        return;
    }
    volume->walking = 1;
    drip_volume_search(volume);
}

static int cache_step(drip_volume_t *volume)
{
    uint32_t block = volume->first_block;
    int result;

    if (volume->stage == VOLUME_CACHE_B) {
        block += volume->blocks - 1;
    }
    if (!drip_volume_need(volume, block, &result)) {
        return result;
    }
    if (is_known(volume)) {
        return DRIP_ERR_OK;
    }
    cache_missed(volume);
    return DRIP_ERR_BUSY;
}

/* ---------------------------------------------------------------- step */

static int stage_step(drip_volume_t *volume)
{
    switch (volume->stage) {
    case VOLUME_SIZE:
        return size_step(volume);
    case VOLUME_FIRST:
        return first_step(volume);
    case VOLUME_TABLE:
        return table_step(volume);
    case VOLUME_BOOT:
        return boot_step(volume);
    case VOLUME_DIRECTORY:
        return drip_volume_directory(volume);
    case VOLUME_FOLLOW:
        return drip_volume_follow(volume);
    case VOLUME_WALK:
        return drip_volume_walk(volume);
    default:
        return cache_step(volume);
    }
}

static int failed(drip_volume_t *volume, int result)
{
    volume->loaded = VOLUME_NONE;
    if (result == DRIP_ERR_NO_CARD) {
        return result;
    }
    if (volume->stage == VOLUME_FIRST) {
        return raw(volume); /* the log has a second superblock */
    }
    if (volume->stage == VOLUME_CACHE_A || volume->stage == VOLUME_CACHE_B) {
        cache_missed(volume);
        return DRIP_ERR_BUSY;
    }
    return result;
}

int drip_volume_step(drip_volume_t *volume)
{
    int result;

    if (volume->reading) {
        result = volume->port->card_poll(volume->port->context);
        if (result == DRIP_ERR_BUSY) {
            return result;
        }
        volume->reading = 0;
        if (result < 0) {
            return failed(volume, result);
        }
    }
    return stage_step(volume);
}
