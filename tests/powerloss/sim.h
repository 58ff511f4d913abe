/* A card in memory and a log on it, driven to rest by every call; shared by the programs here. */
#ifndef SIM_H
#define SIM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drip/bytes.h"
#include "drip/log.h"

enum { SIM_STEPS = 4000000, AREA = DRIP_MARK_BLOCKS * DRIP_BLOCK_BYTES };

typedef struct {
    uint32_t block;
    uint32_t epoch; /* barriers before it */
    uint8_t data[DRIP_BLOCK_BYTES];
} sim_write_t;

/* A card. Transfers take effect when they are polled. */
typedef struct {
    uint8_t *data;
    uint8_t *unreadable; /* per block; NULL = none */
    uint32_t blocks;
    drip_port_t port;
    uint64_t now_us;
    sim_write_t *writes; /* NULL: not noted */
    uint32_t written;
    uint32_t room;
    uint32_t epoch;
    uint64_t reads; /* blocks */
    /* transfer in flight */
    uint8_t busy; /* 1 read, 2 write */
    uint32_t block;
    uint32_t count;
    uint8_t *to;
    const uint8_t *from;
    /* faults: one transfer in `fault_one_in` fails in some way */
    uint32_t fault_one_in;
    uint64_t chance;
    uint64_t faults;
    int only_errors; /* transfers fail, but never lie */
    int sparing;     /* once the card has lied, it only fails until this is set again */
    int has_lied;
    int absent;
} sim_card_t;

uint32_t sim_random(uint64_t *state);
uint32_t sim_below(uint64_t *state, uint32_t limit);

void sim_card_init(sim_card_t *card, uint32_t blocks);
void sim_card_free(sim_card_t *card);

/* Says what went wrong with what it takes to repeat it, and ends the program. */
extern const char *sim_repeat;
_Noreturn void sim_fail(const char *format, ...);
#define MUST(condition, ...)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            sim_fail(__VA_ARGS__);                                                                 \
        }                                                                                          \
    } while (0)

void sim_format(sim_card_t *card, uint32_t unit_blocks, uint32_t segment_blocks, uint64_t *chance);
void sim_drive(drip_log_t *log);
void sim_mount(drip_log_t *log, sim_card_t *card, const drip_log_config_t *config);

/* The payload of a record follows from its token, which lies in raw_score. */
void sim_payload(uint32_t token, uint8_t *out, uint32_t size);

/* Appends, and drives to rest. Returns the sequence number, or the error (negative). */
int64_t sim_append(drip_log_t *log, uint32_t token, uint32_t size, uint16_t percentile,
                   uint16_t class_1);

/* One record as a reader of the format finds it. */
typedef struct {
    drip_record_header_t header;
    uint32_t segment;
    uint32_t first; /* offsets of its first and last byte in the segment */
    uint32_t last;
    const uint8_t *payload; /* valid while it is visited */
} sim_record_t;

typedef void (*sim_visit_t)(void *context, const sim_record_t *record);

/* Reads all durable segments through the log, by the rule of docs/SPEC.md: another implementation of
 * it. Unreadable blocks read as zeros. Also gives count and digest of segment `which`. */
void sim_read_all(drip_log_t *log, sim_visit_t visit, void *context);
/* What is acknowledged is visited, as a host acknowledges what it has stored. */
int sim_ack_oldest(drip_log_t *log, sim_visit_t visit, void *context);

/* Visits the records of a segment whose first `size` bytes are at hand, marks included: they are taken
 * out there. Adds up count and digest. */
void sim_parse_segment(const drip_superblock_t *super, uint32_t segment, uint8_t *data,
                       uint32_t size, sim_visit_t visit, void *context, uint32_t *count,
                       uint32_t *digest);

#endif
