/* The root directory and the chains of the log files. */
#include "volume_internal.h"

#include <string.h>

#include "drip/bytes.h"

enum {
    ENTRY_BYTES = 32,
    ATTRIBUTE_OTHER = 0x18, /* directory, volume label; long names have both bits of it or one */
    NAME_CHARS = 10,        /* DRIP00.LOG */
    MIN_SECONDARY = 2,
    MAX_SECONDARY = 18,
    SET_FILE = 0x85,
    SET_STREAM = 0xc0,
    SET_NAME = 0xc1,
};

enum { ENTRY_OTHER, ENTRY_FILE, ENTRY_END };

static void scan_begin(drip_volume_t *volume)
{
    volume->stage = VOLUME_DIRECTORY;
    volume->set_left = 0;
    volume->directory_cluster = volume->root;
    volume->directory_block =
        volume->kind == VOLUME_FAT16 ? volume->root : volume_cluster_block(volume, volume->root);
}

void drip_volume_search(drip_volume_t *volume)
{
    volume->file = 0;
    volume->chained = 0;
    volume->ragged = 0;
    volume->blocks = 0;
    volume->check = volume->layout;
    volume->directory_seen = 0;
    scan_begin(volume);
}

/* ---------------------------------------------------------------- entries */

static uint8_t name_char(const drip_volume_t *volume, uint32_t i)
{
    switch (i) {
    case 0:
        return 'D';
    case 1:
        return 'R';
    case 2:
        return 'I';
    case 3:
        return 'P';
    case 4:
        return (uint8_t)('0' + volume->file / 10);
    case 5:
        return (uint8_t)('0' + volume->file % 10);
    case 6:
        return '.';
    case 7:
        return 'L';
    case 8:
        return 'O';
    default:
        return 'G';
    }
}

static int fat_entry(drip_volume_t *volume, const uint8_t *entry)
{
    uint32_t i;

    if (entry[0] == 0) {
        return ENTRY_END;
    }
    if ((entry[11] & ATTRIBUTE_OTHER) != 0 || entry[6] != ' ' || entry[7] != ' ') {
        return ENTRY_OTHER;
    }
    for (i = 0; i < NAME_CHARS; i++) {
        if (i != 6 && entry[i < 6 ? i : i + 1] != name_char(volume, i)) {
            return ENTRY_OTHER;
        }
    }
    volume->cluster = volume_u16(entry + 26);
    if (volume->kind == VOLUME_FAT32) {
        volume->cluster |= volume_u16(entry + 20) << 16;
    }
    volume->size = volume_u32(entry + 28);
    volume->size_high = 0;
    volume->set_chained = 1;
    /* Made and last written; looking at a file or backing it up changes neither. */
    volume->stamp = drip_crc32(drip_crc32(0, entry + 13, 5), entry + 22, 4);
    return ENTRY_FILE;
}

static uint16_t set_sum(uint32_t sum, const uint8_t *entry)
{
    uint32_t i;

    for (i = 0; i < ENTRY_BYTES; i++) {
        if (entry[0] != SET_FILE || (i != 2 && i != 3)) {
            sum = ((sum << 15 | sum >> 1) + entry[i]) & 0xffff;
        }
    }
    return (uint16_t)sum;
}

static void set_begin(drip_volume_t *volume, const uint8_t *entry)
{
    volume->set_left = entry[1];
    volume->set_at = 0;
    volume->set_match = (entry[4] & 0x10) == 0;
    volume->set_sum = (uint16_t)volume_u16(entry + 2);
    volume->set_computed = set_sum(0, entry);
    volume->stamp = drip_crc32(drip_crc32(0, entry + 8, 8), entry + 20, 4);
    if (entry[1] < MIN_SECONDARY || entry[1] > MAX_SECONDARY) {
        volume->set_left = 0;
    }
}

static void set_stream(drip_volume_t *volume, const uint8_t *entry)
{
    volume->cluster = volume_u32(entry + 20);
    volume->size = volume_u32(entry + 24);
    volume->size_high = volume_u32(entry + 28);
    volume->set_chained = (entry[1] & 2) == 0;
    if (entry[0] != SET_STREAM || entry[3] != NAME_CHARS) {
        volume->set_match = 0;
    } else if (memcmp(entry + 8, entry + 24, 8) != 0) {
        volume->cluster = 0; /* beyond the valid length a computer sees zeros: refused */
    }
}

static int is_name(const drip_volume_t *volume, const uint8_t *entry)
{
    uint32_t i;
    uint32_t c;

    for (i = 0; i < NAME_CHARS; i++) {
        c = volume_u16(entry + 2 + 2 * i);
        if (c >= 'a' && c <= 'z') {
            c -= 'a' - 'A';
        }
        if (c != name_char(volume, i)) {
            return 0;
        }
    }
    return entry[0] == SET_NAME;
}

/* A file is a set of entries: the file, its stream, its name; the checksum covers all of them. */
static int exfat_entry(drip_volume_t *volume, const uint8_t *entry)
{
    if (entry[0] == 0) {
        return ENTRY_END;
    }
    if (entry[0] == SET_FILE) {
        set_begin(volume, entry);
        return ENTRY_OTHER;
    }
    if (volume->set_left == 0 || (entry[0] & 0xc0) != 0xc0) {
        volume->set_left = 0;
        return ENTRY_OTHER;
    }
    volume->set_computed = set_sum(volume->set_computed, entry);
    if (volume->set_at == 0) {
        set_stream(volume, entry);
    } else if (volume->set_at == 1 && !is_name(volume, entry)) {
        volume->set_match = 0;
    }
    volume->set_at++;
    volume->set_left--;
    return volume->set_left == 0 && volume->set_match && volume->set_sum == volume->set_computed
               ? ENTRY_FILE
               : ENTRY_OTHER;
}

/* ---------------------------------------------------------------- files */

static int next_file(drip_volume_t *volume)
{
    volume->file++;
    if (volume->file >= VOLUME_MAX_FILES) {
        return drip_volume_files_end(volume);
    }
    scan_begin(volume);
    return DRIP_ERR_BUSY;
}

static void note_check(drip_volume_t *volume)
{
    uint32_t facts[4];

    facts[0] = volume->cluster;
    facts[1] = volume->size;
    facts[2] = volume->size_high;
    facts[3] = volume->stamp;
    volume->check = drip_crc32(volume->check, facts, sizeof(facts));
}

/* The file goes on where the one before ends, inside the volume. */
static int file_found(drip_volume_t *volume)
{
    uint32_t blocks = volume->size / DRIP_BLOCK_BYTES | volume->size_high << 23;
    uint32_t slack = (1u << volume->cluster_shift) - 1;
    uint32_t clusters = (blocks >> volume->cluster_shift) + ((blocks & slack) != 0);

    if (volume->size_high >= 512 || blocks == 0 || volume->cluster < 2 ||
        volume->cluster - 2 >= volume->clusters ||
        clusters > volume->clusters - (volume->cluster - 2) || volume->ragged ||
        (volume->file > 0 && volume->cluster != volume->next_cluster)) {
        return DRIP_ERR_CORRUPT;
    }
    if (volume->file == 0) {
        volume->first_block = volume_cluster_block(volume, volume->cluster);
        volume->place.cluster = volume->cluster;
    }
    note_check(volume);
    volume->blocks += blocks;
    volume->next_cluster = volume->cluster + clusters;
    volume->ragged = (blocks & slack) != 0 || volume->size % DRIP_BLOCK_BYTES != 0;
    volume->chained |= volume->set_chained;
    if (volume->walking && volume->set_chained) {
        volume->walk = volume->cluster;
        volume->walk_end = volume->next_cluster - 1;
        volume->stage = VOLUME_WALK;
        return DRIP_ERR_BUSY;
    }
    return next_file(volume);
}

static int directory_next(drip_volume_t *volume)
{
    uint32_t into;

    volume->directory_block++;
    if (++volume->directory_seen >= VOLUME_MAX_DIRECTORY) {
        return drip_volume_files_end(volume);
    }
    if (volume->kind == VOLUME_FAT16) {
        return volume->directory_block < volume->heap ? DRIP_ERR_BUSY
                                                      : drip_volume_files_end(volume);
    }
    into = volume->directory_block - volume->heap;
    if ((into & ((1u << volume->cluster_shift) - 1)) == 0) {
        volume->stage = VOLUME_FOLLOW;
    }
    return DRIP_ERR_BUSY;
}

int drip_volume_directory(drip_volume_t *volume)
{
    uint32_t at;
    int found;
    int result;

    if (!drip_volume_need(volume, volume->directory_block, &result)) {
        return result;
    }
    for (at = 0; at < DRIP_BLOCK_BYTES; at += ENTRY_BYTES) {
        found = volume->kind == VOLUME_EXFAT ? exfat_entry(volume, volume->block + at)
                                             : fat_entry(volume, volume->block + at);
        if (found == ENTRY_FILE) {
            return file_found(volume);
        }
        if (found == ENTRY_END) {
            return drip_volume_files_end(volume);
        }
    }
    return directory_next(volume);
}

/* ---------------------------------------------------------------- table */

/* Block of the table that holds the entry of a cluster. */
static uint32_t entry_block(const drip_volume_t *volume, uint32_t cluster)
{
    return volume->fat + (cluster >> (volume->kind == VOLUME_FAT16 ? 8 : 7));
}

/* The entry, which is loaded; marks of the end become 0xffffffff. */
static uint32_t entry_of(const drip_volume_t *volume, uint32_t cluster)
{
    uint32_t value;

    if (volume->kind == VOLUME_FAT16) {
        value = volume_u16(volume->block + (cluster & 255) * 2);
        return value >= 0xfff8 ? VOLUME_NONE : value;
    }
    value = volume_u32(volume->block + (cluster & 127) * 4);
    if (volume->kind == VOLUME_FAT32) {
        value &= 0x0fffffff;
        return value >= 0x0ffffff8 ? VOLUME_NONE : value;
    }
    return value >= 0xfffffff8 ? VOLUME_NONE : value;
}

int drip_volume_follow(drip_volume_t *volume)
{
    uint32_t next;
    int result;

    if (!drip_volume_need(volume, entry_block(volume, volume->directory_cluster), &result)) {
        return result;
    }
    next = entry_of(volume, volume->directory_cluster);
    if (next < 2 || next - 2 >= volume->clusters) {
        return drip_volume_files_end(volume);
    }
    volume->directory_cluster = next;
    volume->directory_block = volume_cluster_block(volume, next);
    volume->stage = VOLUME_DIRECTORY;
    return DRIP_ERR_BUSY;
}

int drip_volume_walk(drip_volume_t *volume)
{
    uint32_t block = entry_block(volume, volume->walk);
    int result;

    if (!drip_volume_need(volume, block, &result)) {
        return result;
    }
    while (entry_block(volume, volume->walk) == block) {
        if (entry_of(volume, volume->walk) !=
            (volume->walk == volume->walk_end ? VOLUME_NONE : volume->walk + 1)) {
            return DRIP_ERR_CORRUPT;
        }
        if (volume->walk == volume->walk_end) {
            return next_file(volume);
        }
        volume->walk++;
    }
    return DRIP_ERR_BUSY;
}
