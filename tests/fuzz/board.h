/* A board in memory for the fuzz targets: card, flash, line and clock. It stops the run when the core
 * breaks the rules of drip/port.h: two transfers at a time, blocks outside of the card, programming
 * what was not erased. A transfer takes effect when it is polled done, so that a buffer that is
 * given up too early shows. */
#ifndef DRIP_FUZZ_BOARD_H
#define DRIP_FUZZ_BOARD_H

#include "drip/port.h"
#include "fuzz.h"

enum { BOARD_AREAS = 4, BOARD_SENT = 4096 };

typedef struct {
    drip_port_t port;
    uint64_t time_us;

    uint8_t *card;
    uint32_t card_blocks;
    uint8_t *card_data;
    uint32_t card_at;
    uint32_t card_count;
    uint32_t card_wait;   /* polls until the transfer is done */
    uint32_t card_polls;  /* what every transfer waits */
    uint32_t card_faults; /* one transfer in so many fails; 0 = none */
    uint32_t card_number; /* of transfers */
    uint8_t card_writes;
    uint8_t card_busy;
    uint8_t card_gone;

    uint8_t *flash[BOARD_AREAS];
    const uint8_t *flash_data; /* NULL = erase */
    uint32_t flash_at;
    uint32_t flash_size;
    int flash_area;
    uint8_t flash_busy;
    uint8_t flash_waits;

    const uint8_t *line; /* bytes for the device */
    size_t line_left;
    uint32_t line_gives; /* most bytes per read */
    uint32_t line_takes; /* most bytes per write; 0 = blocked */
    uint32_t baud;
    uint8_t baud_waits;
    uint8_t sent[BOARD_SENT];
    uint32_t sent_at;
    uint32_t sent_size;
    uint8_t reset;
} board_t;

static inline uint64_t board_time(void *context)
{
    return ((board_t *)context)->time_us;
}

/* ---------------------------------------------------------------- card */

static inline int board_card_blocks(void *context, uint32_t *blocks)
{
    const board_t *board = context;

    *blocks = board->card_blocks;
    return board->card == NULL || board->card_gone ? DRIP_ERR_NO_CARD : DRIP_ERR_OK;
}

static inline int board_card_start(board_t *board, uint32_t block, uint8_t *data, uint32_t count,
                                   uint8_t writes)
{
    if (board->card == NULL || board->card_gone) {
        return DRIP_ERR_NO_CARD;
    }
    MUST(!board->card_busy);
    MUST(count > 0 && block <= board->card_blocks && count <= board->card_blocks - block);
    board->card_busy = 1;
    board->card_writes = writes;
    board->card_data = data;
    board->card_at = block;
    board->card_count = count;
    board->card_wait = board->card_polls;
    board->card_number++;
    return DRIP_ERR_OK;
}

static inline int board_card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    return board_card_start(context, block, data, count, 0);
}

static inline int board_card_write(void *context, uint32_t block, const uint8_t *data,
                                   uint32_t count)
{
    return board_card_start(context, block, (uint8_t *)(uintptr_t)data, count, 1);
}

static inline int board_card_poll(void *context)
{
    board_t *board = context;
    uint8_t *at = board->card + (size_t)board->card_at * DRIP_BLOCK_BYTES;
    const size_t size = (size_t)board->card_count * DRIP_BLOCK_BYTES;

    if (board->card_wait > 0) {
        board->card_wait--;
        return DRIP_ERR_BUSY;
    }
    MUST(board->card_busy);
    board->card_busy = 0;
    if (board->card_gone) {
        return DRIP_ERR_NO_CARD;
    }
    if (board->card_faults != 0 && board->card_number % board->card_faults == 0) {
        return DRIP_ERR_IO;
    }
    if (board->card_writes) {
        memcpy(at, board->card_data, size);
    } else {
        memcpy(board->card_data, at, size);
    }
    return DRIP_ERR_OK;
}

/* ---------------------------------------------------------------- flash */

static inline uint32_t board_area_bytes(const board_t *board, int area)
{
    return area < 2 ? board->port.slot_bytes : board->port.journal_bytes;
}

static inline const uint8_t *board_flash_map(void *context, int area)
{
    const board_t *board = context;

    MUST(area >= 0 && area < BOARD_AREAS);
    return board->flash[area];
}

static inline int board_flash_erase(void *context, int area)
{
    board_t *board = context;

    MUST(area >= 0 && area < BOARD_AREAS && !board->flash_busy);
    board->flash_busy = 1;
    board->flash_waits = 1;
    board->flash_area = area;
    board->flash_data = NULL;
    return DRIP_ERR_OK;
}

static inline int board_flash_write(void *context, int area, uint32_t offset, const uint8_t *data,
                                    uint32_t size)
{
    board_t *board = context;
    uint32_t i;

    MUST(area >= 0 && area < BOARD_AREAS && !board->flash_busy);
    MUST(size > 0 && offset % 16 == 0 && size % 16 == 0);
    MUST(offset <= board_area_bytes(board, area) && size <= board_area_bytes(board, area) - offset);
    for (i = 0; i < size; i++) {
        MUST(board->flash[area][offset + i] == 0xFF);
    }
    board->flash_busy = 1;
    board->flash_waits = 1;
    board->flash_area = area;
    board->flash_at = offset;
    board->flash_size = size;
    board->flash_data = data;
    return DRIP_ERR_OK;
}

static inline int board_flash_poll(void *context)
{
    board_t *board = context;
    uint8_t *area = board->flash[board->flash_area];

    MUST(board->flash_busy);
    if (board->flash_waits > 0) {
        board->flash_waits--;
        return DRIP_ERR_BUSY;
    }
    board->flash_busy = 0;
    if (board->flash_data == NULL) {
        memset(area, 0xFF, board_area_bytes(board, board->flash_area));
    } else {
        memcpy(area + board->flash_at, board->flash_data, board->flash_size);
    }
    return DRIP_ERR_OK;
}

/* ---------------------------------------------------------------- line */

static inline int board_line_read(void *context, uint8_t *data, uint32_t size)
{
    board_t *board = context;
    size_t n = size < board->line_gives ? size : board->line_gives;

    n = n < board->line_left ? n : board->line_left;
    if (n > 0) {
        memcpy(data, board->line, n);
        board->line += n;
        board->line_left -= n;
    }
    return (int)n;
}

static inline int board_line_write(void *context, const uint8_t *data, uint32_t size)
{
    board_t *board = context;
    uint32_t n = size < board->line_takes ? size : board->line_takes;

    n = n < BOARD_SENT - board->sent_size ? n : BOARD_SENT - board->sent_size;
    memcpy(board->sent + board->sent_size, data, n);
    board->sent_size += n;
    return (int)n;
}

/* The other end of the line reads what the device sent. */
static inline int board_host_read(void *context, uint8_t *data, uint32_t size)
{
    board_t *board = context;
    const uint32_t left = board->sent_size - board->sent_at;
    const uint32_t n = size < left ? size : left;

    memcpy(data, board->sent + board->sent_at, n);
    board->sent_at += n;
    if (board->sent_at == board->sent_size) {
        board->sent_at = 0;
        board->sent_size = 0;
    }
    return (int)n;
}

static inline int board_host_write(void *context, const uint8_t *data, uint32_t size)
{
    (void)context;
    (void)data;
    return (int)size;
}

static inline void board_reset(void *context)
{
    ((board_t *)context)->reset = 1;
}

/* ---------------------------------------------------------------- all of it */

/* Makes a board with an open line. Card and flash are for the caller to add. */
/* Every second question is answered BUSY, odd rates are refused. */
static inline int board_baud(void *context, uint32_t baud)
{
    board_t *board = context;

    MUST(baud != 0);
    board->baud_waits = !board->baud_waits;
    if (board->baud_waits) {
        return DRIP_ERR_BUSY;
    }
    if (baud % 2 != 0) {
        return DRIP_ERR_ARGUMENT;
    }
    board->baud = baud;
    return DRIP_ERR_OK;
}

static inline void board_init(board_t *board)
{
    drip_port_t *port = &board->port;

    memset(board, 0, sizeof(*board));
    board->time_us = 1000000;
    board->line_gives = UINT32_MAX;
    board->line_takes = UINT32_MAX;
    port->context = board;
    port->time_us = board_time;
    port->link_read = board_line_read;
    port->link_write = board_line_write;
    board->port.link_baud = board_baud;
    board->port.baud_most = 3000000;
    port->card_blocks = board_card_blocks;
    port->card_read = board_card_read;
    port->card_write = board_card_write;
    port->card_poll = board_card_poll;
    port->reset = board_reset;
}

static inline void board_add_card(board_t *board, uint32_t blocks)
{
    board->card_blocks = blocks;
    board->card = fuzz_block((size_t)blocks * DRIP_BLOCK_BYTES, 0);
}

static inline void board_add_flash(board_t *board, uint32_t slot_bytes, uint32_t journal_bytes)
{
    drip_port_t *port = &board->port;
    int area;

    port->slot_bytes = slot_bytes;
    port->journal_bytes = journal_bytes;
    port->flash_map = board_flash_map;
    port->flash_erase = board_flash_erase;
    port->flash_write = board_flash_write;
    port->flash_poll = board_flash_poll;
    for (area = 0; area < BOARD_AREAS; area++) {
        board->flash[area] = fuzz_block(board_area_bytes(board, area), 0xFF);
    }
}

/* What was in flight is lost, as at a restart. */
static inline void board_restart(board_t *board)
{
    board->card_busy = 0;
    board->card_wait = 0;
    board->flash_busy = 0;
    board->sent_at = 0;
    board->sent_size = 0;
    board->reset = 0;
}

static inline void board_free(board_t *board)
{
    int area;

    free(board->card);
    for (area = 0; area < BOARD_AREAS; area++) {
        free(board->flash[area]);
    }
}

#endif
