/* A whole device on a card in memory, a line and a clock of its own; shared by the programs here. */
#ifndef BOARD_H
#define BOARD_H

#include "drip/device.h"
#include "sim.h"

enum { LINE_BYTES = 1 << 14 };

typedef struct {
    uint8_t bytes[LINE_BYTES];
    uint32_t begin;
    uint32_t end;
} line_t;

typedef struct board {
    sim_card_t card;
    drip_port_t port;
    drip_device_memory_t memory;
    drip_device_t device;
    uint64_t boot_us; /* when it was switched on */
    uint32_t resets;  /* that it made itself */
    /* how long a transfer takes; busy_us is asked for each write and may be NULL */
    uint32_t read_us;
    uint32_t write_us;
    uint32_t (*busy_us)(struct board *board);
    uint64_t ready_us; /* of the transfer in flight */
    uint64_t chance;
    /* the line and its other end */
    line_t to_device;
    line_t to_host;
    drip_port_t host_port;
    drip_link_t host;
    uint32_t noise_one_in; /* bytes; 0 = none */
    uint16_t request_id;
    uint32_t repeated; /* requests */
} board_t;

/* A board with `frames` places of `frame_bytes` for captured frames. Not switched on. */
void board_init(board_t *board, uint32_t blocks, uint32_t frame_bytes, uint32_t frames);

/* Lends it a model from a file. */
void board_model(board_t *board, const char *path);

/* Switches it on: RAM holds nothing of use. */
void board_boot(board_t *board);

/* Power fails: a write in flight is cut. */
void board_cut(board_t *board);

/* Lets it work for some time, a step per millisecond or whenever there is more to do. */
void board_run(board_t *board, uint64_t us);

/* Until no frame is in work and the log rests. Returns 0 when it takes more than ten seconds. */
int board_settle(board_t *board);

/* Sends a request and repeats it until it is answered. Returns the size of the answer's body, which
 * `body` then holds (DRIP_MAX_BODY_BYTES), or -1 without any answer in half a minute. */
int board_ask(board_t *board, uint8_t type, uint8_t *body, uint32_t size);

#endif
