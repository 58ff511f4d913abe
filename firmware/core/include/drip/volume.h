/* Finds the files DRIP00.LOG, DRIP01.LOG ... in the root of a FAT16, FAT32 or exFAT volume, with or
 * without an MBR before it, and makes sure that they are one piece of the card. The log then reads and
 * writes blocks inside; the file system itself is never written.
 *
 * Every block that is read may say anything: fields are checked before use and each search is bounded.
 * Cards without a volume are left to the log as they are (a log in consecutive blocks from block 0). */
#ifndef DRIP_VOLUME_H
#define DRIP_VOLUME_H

#include "drip/port.h"

/* What identifies a place that was found in one piece; kept in the superblock. */
typedef struct {
    uint32_t serial;  /* of the volume */
    uint32_t cluster; /* first one of the log */
    uint32_t blocks;
    uint32_t
        check; /* CRC-32 of the layout of the volume, and of place, size and times of the files */
} drip_volume_place_t;

/* A search. Members are private but for the result. */
typedef struct {
    const drip_port_t *port;
    uint8_t *block; /* lent: what was read last */
    uint8_t stage;
    uint8_t reading;
    uint8_t kind;
    uint8_t cluster_shift; /* blocks per cluster */
    uint8_t partition;
    uint8_t seen;    /* a volume was found */
    uint8_t file;    /* number of the file that is looked for */
    uint8_t chained; /* some file needs its chain compared */
    uint8_t ragged;  /* the file before ends inside a cluster */
    uint8_t walking;
    uint8_t set_left;
    uint8_t set_at;
    uint8_t set_match;
    uint8_t set_chained;
    uint16_t set_sum; /* exFAT: checksum of an entry set, as stored and as computed */
    uint16_t set_computed;
    uint32_t first_block; /* result: where the log lies */
    uint32_t blocks;      /* result: its size; 0 = to the end of the card */
    uint32_t loaded;      /* number of `block` */
    uint32_t card_blocks;
    uint32_t start;    /* of the volume */
    uint32_t fat;      /* first block of the active table */
    uint32_t heap;     /* block of cluster 2 */
    uint32_t clusters; /* clusters 2 .. clusters + 1 exist */
    uint32_t root;     /* first cluster; of FAT16 the first block */
    uint32_t root_blocks;
    uint32_t directory_cluster;
    uint32_t directory_block;
    uint32_t directory_seen;
    uint32_t cluster; /* of the file in hand */
    uint32_t size;
    uint32_t size_high;
    uint32_t stamp;
    uint32_t next_cluster; /* where the next file must begin */
    uint32_t layout;       /* check of the volume, the files not yet included */
    uint32_t check;
    uint32_t walk; /* cluster whose entry is compared next */
    uint32_t walk_end;
    drip_volume_place_t place; /* result: to be kept; zeros when there is no volume */
} drip_volume_t;

/* Starts a search on the card of `port`.
 *
 * Memory: `block` has DRIP_BLOCK_BYTES, aligned to 8, and is the search's until it is done. */
void drip_volume_start(drip_volume_t *volume, const drip_port_t *port, uint8_t *block);

/* Does one piece of it: starts or polls one transfer, or looks at one block. Never waits.
 *
 * A place that the superblock in it already knows is believed: that takes a few blocks. Otherwise the
 * chains of the files are read once.
 * Returns DRIP_ERR_BUSY while there is more to do; DRIP_ERR_OK (`first_block`, `blocks` and `place` are
 * valid); DRIP_ERR_MAGIC (a volume without log files); DRIP_ERR_CORRUPT (log files that are not in one
 * piece, or a file system that contradicts itself); DRIP_ERR_NO_CARD; or what the port answered. */
int drip_volume_step(drip_volume_t *volume);

#endif
