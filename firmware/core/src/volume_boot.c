/* Boot sectors of FAT16, FAT32 and exFAT: every field is checked against the card. */
#include "volume_internal.h"

#include <string.h>

enum {
    BLOCK_SHIFT = 9,
    MIN_FAT16_CLUSTERS = 4085, /* fewer: FAT12 */
    MAX_FAT16_CLUSTERS = 65524,
    MAX_FAT32_CLUSTERS = 0x0ffffff5,
    EXFAT_MIN_FAT_OFFSET = 24,
    EXFAT_MAX_SHIFT = 25 - BLOCK_SHIFT,
};

static int cluster_exists(const drip_volume_t *volume, uint32_t cluster)
{
    return cluster >= 2 && cluster - 2 < volume->clusters;
}

/* Whether the table holds an entry for every cluster. */
static int table_fits(uint32_t fat_blocks, uint32_t clusters, uint32_t entries_shift)
{
    return fat_blocks > (clusters + 1) >> entries_shift;
}

static int fat_layout(drip_volume_t *volume, uint32_t total, uint32_t fat_blocks)
{
    const uint8_t *boot = volume->block;
    uint32_t reserved = volume_u16(boot + 14);
    uint32_t entries = volume_u16(boot + 17);
    uint32_t root_blocks = (entries * 32 + DRIP_BLOCK_BYTES - 1) >> BLOCK_SHIFT;
    uint64_t meta = (uint64_t)boot[16] * fat_blocks + reserved + root_blocks;

    if (reserved == 0 || boot[16] == 0 || boot[16] > 2 || fat_blocks == 0 || meta >= total) {
        return 0;
    }
    volume->fat = volume->start + reserved;
    volume->heap = volume->start + (uint32_t)meta;
    volume->root_blocks = root_blocks;
    volume->root = volume->heap - root_blocks;
    volume->clusters = (total - (uint32_t)meta) >> volume->cluster_shift;
    return 1;
}

static int fat16(drip_volume_t *volume, uint32_t fat_blocks)
{
    volume->kind = VOLUME_FAT16;
    volume->place.serial = volume_u32(volume->block + 39);
    return volume->clusters >= MIN_FAT16_CLUSTERS && volume->clusters <= MAX_FAT16_CLUSTERS &&
           volume->root_blocks > 0 && table_fits(fat_blocks, volume->clusters, 8);
}

static int fat32(drip_volume_t *volume, uint32_t fat_blocks)
{
    const uint8_t *boot = volume->block;
    uint32_t flags = volume_u16(boot + 40);

    volume->kind = VOLUME_FAT32;
    volume->place.serial = volume_u32(boot + 67);
    volume->root = volume_u32(boot + 44);
    if (volume->root_blocks != 0 || volume_u16(boot + 42) != 0 || volume->clusters == 0 ||
        volume->clusters > MAX_FAT32_CLUSTERS || !table_fits(fat_blocks, volume->clusters, 7) ||
        !cluster_exists(volume, volume->root)) {
        return 0;
    }
    if ((flags & 0x80) != 0) { /* the copies differ, and one counts */
        if ((flags & 15) >= boot[16]) {
            return 0;
        }
        volume->fat += (flags & 15) * fat_blocks;
    }
    return 1;
}

static int fat(drip_volume_t *volume)
{
    const uint8_t *boot = volume->block;
    uint32_t total = volume_u16(boot + 19);
    uint32_t fat_blocks = volume_u16(boot + 22);
    uint32_t cluster_blocks = boot[13];
    int small = fat_blocks != 0;

    if ((boot[0] != 0xeb && boot[0] != 0xe9) || volume_u16(boot + 11) != DRIP_BLOCK_BYTES ||
        cluster_blocks == 0 || (cluster_blocks & (cluster_blocks - 1)) != 0) {
        return 0;
    }
    volume->cluster_shift = 0;
    while (1u << volume->cluster_shift < cluster_blocks) {
        volume->cluster_shift++;
    }
    if (total == 0) {
        total = volume_u32(boot + 32);
    }
    if (!small) {
        fat_blocks = volume_u32(boot + 36);
    }
    if (total > volume->card_blocks - volume->start || !fat_layout(volume, total, fat_blocks)) {
        return 0;
    }
    return small ? fat16(volume, fat_blocks) : fat32(volume, fat_blocks);
}

static int is_exfat(const uint8_t *boot)
{
    uint32_t i;

    if (boot[0] != 0xeb || boot[3] != 'E' || boot[4] != 'X' || boot[5] != 'F' || boot[6] != 'A' ||
        boot[7] != 'T' || boot[8] != ' ' || boot[9] != ' ' || boot[10] != ' ') {
        return 0;
    }
    for (i = 11; i < 64; i++) { /* zeros where a FAT volume has its layout */
        if (boot[i] != 0) {
            return 0;
        }
    }
    return 1;
}

static int exfat(drip_volume_t *volume)
{
    const uint8_t *boot = volume->block;
    uint32_t total = volume_u32(boot + 72);
    uint32_t fat_offset = volume_u32(boot + 80);
    uint32_t fat_blocks = volume_u32(boot + 84);
    uint32_t heap = volume_u32(boot + 88);
    uint32_t shift = boot[109];

    volume->kind = VOLUME_EXFAT;
    volume->clusters = volume_u32(boot + 92);
    volume->root = volume_u32(boot + 96);
    volume->root_blocks = 0;
    volume->place.serial = volume_u32(boot + 100);
    if (volume_u32(boot + 76) != 0 || total > volume->card_blocks - volume->start ||
        boot[108] != BLOCK_SHIFT || shift > EXFAT_MAX_SHIFT || boot[110] == 0 || boot[110] > 2 ||
        heap >= total || fat_offset < EXFAT_MIN_FAT_OFFSET || fat_offset >= heap ||
        (uint64_t)boot[110] * fat_blocks > heap - fat_offset) {
        return 0;
    }
    volume->cluster_shift = (uint8_t)shift;
    if (volume->clusters == 0 || volume->clusters > (total - heap) >> shift ||
        !table_fits(fat_blocks, volume->clusters, 7) || !cluster_exists(volume, volume->root)) {
        return 0;
    }
    volume->heap = volume->start + heap;
    volume->fat = volume->start + fat_offset;
    if (boot[110] == 2 && (boot[106] & 1) != 0) {
        volume->fat += fat_blocks;
    }
    return 1;
}

int drip_volume_boot(drip_volume_t *volume)
{
    const uint8_t *boot = volume->block;

    if (boot[510] != 0x55 || boot[511] != 0xaa) {
        return 0;
    }
    return is_exfat(boot) ? exfat(volume) : fat(volume);
}
