/* Shared by the files of the search for log files; not for anyone else. */
#ifndef DRIP_VOLUME_INTERNAL_H
#define DRIP_VOLUME_INTERNAL_H

#include "drip/volume.h"

enum { VOLUME_FAT16, VOLUME_FAT32, VOLUME_EXFAT };

enum {
    VOLUME_SIZE,
    VOLUME_FIRST,     /* block 0: a log, a volume or a partition table */
    VOLUME_TABLE,     /* an entry of the partition table */
    VOLUME_BOOT,      /* the first block of a partition */
    VOLUME_DIRECTORY, /* a block of the root directory */
    VOLUME_FOLLOW,    /* its next cluster */
    VOLUME_CACHE_A,   /* what the superblocks know */
    VOLUME_CACHE_B,
    VOLUME_WALK, /* the chain of a file */
};

enum {
    VOLUME_NONE = 0xffffffff, /* no block is loaded */
    VOLUME_MAX_FILES = 100,
    VOLUME_MAX_DIRECTORY = 8192, /* blocks read for all files: a chain may be a ring */
};

static inline uint32_t volume_u16(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8;
}

static inline uint32_t volume_u32(const uint8_t *bytes)
{
    return volume_u16(bytes) | volume_u16(bytes + 2) << 16;
}

static inline uint32_t volume_cluster_block(const drip_volume_t *volume, uint32_t cluster)
{
    return volume->heap + ((cluster - 2) << volume->cluster_shift);
}

/* Takes the layout of a volume from its boot sector, which is loaded. Returns 1, or 0 when it is none
 * that can be used. */
int drip_volume_boot(drip_volume_t *volume);

/* Returns 1 when `block` is loaded; otherwise starts to read it. */
int drip_volume_need(drip_volume_t *volume, uint32_t block, int *result);

/* Starts to look for the first file. */
void drip_volume_search(drip_volume_t *volume);

/* The steps of the search. Return like drip_volume_step. */
int drip_volume_directory(drip_volume_t *volume);
int drip_volume_follow(drip_volume_t *volume);
int drip_volume_walk(drip_volume_t *volume);

/* What follows when there is no further file. */
int drip_volume_files_end(drip_volume_t *volume);

#endif
