/* The whole device on a MicroPython board: a port whose line, card and flash are buffers.
 *
 * The core starts a transfer and polls; Python sees what is wanted between two steps, does it with
 * whatever stream, block device or file it has, and says how it went. So no Python code ever runs
 * inside the core, and none of its exceptions can cut through it. */
#include "drip_mp.h"

#include <string.h>

enum { RX_BYTES = 2048, TX_BYTES = 2048, AREAS = 4 };

/* What is started and not done: also the index of `wants`. */
enum { CARD_NONE, CARD_READ, CARD_WRITE };
enum { DONE_CARD, DONE_FLASH };

typedef struct {
    uint32_t begin;
    uint32_t end;
} ring_t;

typedef struct {
    drip_device_t device;
    drip_port_t port;
    drip_device_memory_t memory;
    drip_stream_t stream;
    uint64_t now_us;
    uint8_t *card_data;
    uint32_t card_block;
    uint32_t card_count;
    uint32_t card_blocks; /* 0 = no card */
    int32_t card_result;
    uint8_t *areas[AREAS];
    uint32_t flash_offset;
    uint32_t flash_bytes; /* to be kept by Python; 0 = nothing */
    int32_t flash_result;
    ring_t rx;
    ring_t tx;
    uint8_t card_wanted;
    uint8_t flash_area;
    uint8_t flash_wanted;
    uint8_t reset_wanted;
    uint8_t has_stream;
    uint8_t is_started;
    uint8_t rx_bytes[RX_BYTES];
    uint8_t tx_bytes[TX_BYTES];
} board_t;

uint32_t drip_mp_board_bytes(void)
{
    return sizeof(board_t);
}

static board_t *board_of(mp_obj_t state)
{
    return drip_mp_bytes(state, MP_BUFFER_RW, sizeof(board_t), NULL);
}

static mp_obj_t refused(void)
{
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_ARGUMENT);
}

/* ------------------------------------------------------------------ port */

static uint64_t time_us(void *context)
{
    return ((board_t *)context)->now_us;
}

static int link_read(void *context, uint8_t *data, uint32_t size)
{
    board_t *board = context;
    uint32_t count = 0;

    while (count < size && board->rx.begin != board->rx.end) {
        data[count++] = board->rx_bytes[board->rx.begin++ % RX_BYTES];
    }
    return (int)count;
}

static int link_write(void *context, const uint8_t *data, uint32_t size)
{
    board_t *board = context;
    uint32_t count = 0;

    while (count < size && board->tx.end - board->tx.begin < TX_BYTES) {
        board->tx_bytes[board->tx.end++ % TX_BYTES] = data[count++];
    }
    return (int)count;
}

static int card_blocks(void *context, uint32_t *blocks)
{
    *blocks = ((board_t *)context)->card_blocks;
    return *blocks == 0 ? DRIP_ERR_NO_CARD : DRIP_ERR_OK;
}

static int card_start(board_t *board, uint8_t wanted, uint32_t block, uint8_t *data, uint32_t count)
{
    if (board->card_blocks == 0) {
        return DRIP_ERR_NO_CARD;
    }
    board->card_wanted = wanted;
    board->card_block = block;
    board->card_data = data;
    board->card_count = count;
    board->card_result = DRIP_ERR_BUSY;
    return DRIP_ERR_OK;
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    return card_start(context, CARD_READ, block, data, count);
}

static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    /* Only read from: see drip_mp_board_block. */
    return card_start(context, CARD_WRITE, block, (uint8_t *)(uintptr_t)data, count);
}

static int card_poll(void *context)
{
    return ((board_t *)context)->card_result;
}

static uint32_t area_bytes(const board_t *board, int area)
{
    return area < 2 ? board->port.slot_bytes : board->port.journal_bytes;
}

static const uint8_t *flash_map(void *context, int area)
{
    return area < 0 || area >= AREAS ? NULL : ((board_t *)context)->areas[area];
}

static int flash_start(board_t *board, int area, uint32_t offset, uint32_t size)
{
    board->flash_area = (uint8_t)area;
    board->flash_offset = offset;
    board->flash_bytes = size;
    board->flash_wanted = 1;
    board->flash_result = DRIP_ERR_BUSY;
    return DRIP_ERR_OK;
}

static int flash_erase(void *context, int area)
{
    board_t *board = context;

    if (flash_map(context, area) == NULL) {
        return DRIP_ERR_ARGUMENT;
    }
    memset(board->areas[area], 0xFF, area_bytes(board, area));
    return flash_start(board, area, 0, area_bytes(board, area));
}

static int flash_write(void *context, int area, uint32_t offset, const uint8_t *data, uint32_t size)
{
    board_t *board = context;
    uint32_t i;

    if (flash_map(context, area) == NULL || offset > area_bytes(board, area) ||
        size > area_bytes(board, area) - offset) {
        return DRIP_ERR_ARGUMENT;
    }
    for (i = 0; i < size; i++) {
        board->areas[area][offset + i] &= data[i];
    }
    return flash_start(board, area, offset, size);
}

static int flash_poll(void *context)
{
    return ((board_t *)context)->flash_result;
}

static int sensor_stream(void *context, uint32_t index, drip_stream_t *stream)
{
    const board_t *board = context;

    if (index != 0 || !board->has_stream) {
        return 0;
    }
    memcpy(stream, &board->stream, sizeof(*stream));
    return 1;
}

static void reset(void *context)
{
    ((board_t *)context)->reset_wanted = 1;
}

static void make_port(board_t *board)
{
    drip_port_t *port = &board->port;

    port->context = board;
    port->time_us = time_us;
    port->link_read = link_read;
    port->link_write = link_write;
    port->card_blocks = card_blocks;
    port->card_read = card_read;
    port->card_write = card_write;
    port->card_poll = card_poll;
    port->sensor_stream = sensor_stream;
    port->reset = reset;
}

/* ------------------------------------------------------------------ starting */

static int lend(board_t *board, const mp_obj_t *arguments)
{
    drip_device_memory_t *memory = &board->memory;

    memory->arena = drip_mp_bytes(arguments[1], MP_BUFFER_RW, 1, &memory->arena_bytes);
    memory->capture = drip_mp_bytes(arguments[2], MP_BUFFER_RW, 1, &memory->capture_bytes);
    memory->scratch = drip_mp_bytes(arguments[3], MP_BUFFER_RW, 1, &memory->scratch_bytes);
    if (arguments[4] != mp_const_none) {
        memory->fixed_model =
            drip_mp_bytes(arguments[4], MP_BUFFER_READ, 1, &memory->fixed_model_bytes);
    }
    return memory->arena == NULL || memory->capture == NULL || memory->scratch == NULL;
}

/* board_open(state, arena, capture, scratch, model, id, name) */
mp_obj_t drip_mp_board_open(size_t count, const mp_obj_t *arguments)
{
    board_t *board = board_of(arguments[0]);
    const uint8_t *id = drip_mp_bytes(arguments[5], MP_BUFFER_READ, 16, NULL);
    uint32_t name_bytes;
    const char *name = drip_mp_bytes(arguments[6], MP_BUFFER_READ, 1, &name_bytes);

    (void)count;
    if (board == NULL || id == NULL || name == NULL) {
        return refused();
    }
    memset(board, 0, sizeof(*board));
    make_port(board);
    memcpy(board->port.device_id, id, sizeof(board->port.device_id));
    memcpy(board->port.name, name,
           name_bytes < sizeof(board->port.name) ? name_bytes : sizeof(board->port.name) - 1);
    board->port.boot_reason = DRIP_BOOT_POWER;
    return lend(board, arguments) ? refused() : MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

/* `slots`: both models, one after the other; `journals`: both areas of the journal. */
mp_obj_t drip_mp_board_flash(mp_obj_t state, mp_obj_t slots, mp_obj_t journals)
{
    board_t *board = board_of(state);
    uint32_t slot_bytes;
    uint32_t journal_bytes;
    uint8_t *models = drip_mp_bytes(slots, MP_BUFFER_RW, 32, &slot_bytes);
    uint8_t *entries =
        drip_mp_bytes(journals, MP_BUFFER_RW, 8 * DRIP_SLOT_ENTRY_BYTES, &journal_bytes);

    if (board == NULL || models == NULL || entries == NULL || slot_bytes % 32 != 0 ||
        journal_bytes % 32 != 0) {
        return refused();
    }
    board->port.slot_bytes = slot_bytes / 2;
    board->port.journal_bytes = journal_bytes / 2;
    board->areas[0] = models;
    board->areas[1] = models + slot_bytes / 2;
    board->areas[2] = entries;
    board->areas[3] = entries + journal_bytes / 2;
    board->port.flash_map = flash_map;
    board->port.flash_erase = flash_erase;
    board->port.flash_write = flash_write;
    board->port.flash_poll = flash_poll;
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

/* `description`: struct stream of docs/SPEC.md. */
mp_obj_t drip_mp_board_stream(mp_obj_t state, mp_obj_t description)
{
    board_t *board = board_of(state);
    const void *bytes = drip_mp_bytes(description, MP_BUFFER_READ, DRIP_STREAM_BYTES, NULL);

    if (board == NULL || bytes == NULL) {
        return refused();
    }
    memcpy(&board->stream, bytes, sizeof(board->stream));
    board->has_stream = 1;
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

/* Blocks of the card that is there now; 0 = none. */
mp_obj_t drip_mp_board_card(mp_obj_t state, mp_obj_t blocks)
{
    board_t *board = board_of(state);

    if (board == NULL) {
        return refused();
    }
    board->card_blocks = (uint32_t)mp_obj_get_int(blocks);
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

/* Also what a reset does: everything but what is on card and flash is forgotten. */
mp_obj_t drip_mp_board_start(mp_obj_t state)
{
    board_t *board = board_of(state);
    int code;

    if (board == NULL) {
        return refused();
    }
    if (board->is_started) {
        board->port.boot_reason = DRIP_BOOT_REQUEST;
    }
    board->rx.begin = board->rx.end = 0;
    board->tx.begin = board->tx.end = 0;
    board->card_wanted = CARD_NONE;
    board->flash_wanted = 0;
    board->reset_wanted = 0;
    board->now_us = 0;
    code = drip_device_init(&board->device, &board->port, &board->memory);
    board->is_started = code >= 0;
    return MP_OBJ_NEW_SMALL_INT(code);
}

/* ------------------------------------------------------------------ running */

mp_obj_t drip_mp_board_step(mp_obj_t state, mp_obj_t elapsed_us)
{
    board_t *board = board_of(state);

    if (board == NULL || !board->is_started) {
        return refused();
    }
    board->now_us += (uint32_t)mp_obj_get_int(elapsed_us);
    return MP_OBJ_NEW_SMALL_INT(drip_device_step(&board->device));
}

/* Takes received bytes. Returns how many more there is room for; size 0 only asks. */
mp_obj_t drip_mp_board_receive(mp_obj_t state, mp_obj_t data, mp_obj_t size)
{
    board_t *board = board_of(state);
    uint32_t count = (uint32_t)mp_obj_get_int(size);
    const uint8_t *bytes = drip_mp_bytes(data, MP_BUFFER_READ, count, NULL);
    uint32_t i;

    if (board == NULL || bytes == NULL) {
        return refused();
    }
    for (i = 0; i < count && board->rx.end - board->rx.begin < RX_BYTES; i++) {
        board->rx_bytes[board->rx.end++ % RX_BYTES] = bytes[i];
    }
    return MP_OBJ_NEW_SMALL_INT((int)(RX_BYTES - (board->rx.end - board->rx.begin)));
}

/* Moves bytes to send. Returns how many. */
mp_obj_t drip_mp_board_transmit(mp_obj_t state, mp_obj_t data)
{
    board_t *board = board_of(state);
    uint32_t size;
    uint8_t *bytes = drip_mp_bytes(data, MP_BUFFER_RW, 1, &size);
    uint32_t count = 0;

    if (board == NULL || bytes == NULL) {
        return refused();
    }
    while (count < size && board->tx.begin != board->tx.end) {
        bytes[count++] = board->tx_bytes[board->tx.begin++ % TX_BYTES];
    }
    return MP_OBJ_NEW_SMALL_INT((int)count);
}

/* Words: card (0, 1 read, 2 write), block, count; flash wanted, area, offset, bytes; reset wanted. */
mp_obj_t drip_mp_board_wants(mp_obj_t state, mp_obj_t out)
{
    board_t *board = board_of(state);
    uint32_t *words = drip_mp_bytes(out, MP_BUFFER_RW, 8 * sizeof(uint32_t), NULL);

    if (board == NULL || words == NULL) {
        return refused();
    }
    words[0] = board->card_wanted;
    words[1] = board->card_block;
    words[2] = board->card_count;
    words[3] = board->flash_wanted;
    words[4] = board->flash_area;
    words[5] = board->flash_offset;
    words[6] = board->flash_bytes;
    words[7] = board->reset_wanted;
    return MP_OBJ_NEW_SMALL_INT((board->card_wanted != CARD_NONE) | board->flash_wanted |
                                board->reset_wanted);
}

/* Moves whole blocks of the transfer that is wanted, from block `index` of it on: out of the buffer when it
 * writes to the card, into the core's when it reads. */
mp_obj_t drip_mp_board_block(mp_obj_t state, mp_obj_t index, mp_obj_t data)
{
    board_t *board = board_of(state);
    uint32_t at = (uint32_t)mp_obj_get_int(index);
    uint32_t size;
    uint8_t *bytes = drip_mp_bytes(data, MP_BUFFER_RW, DRIP_BLOCK_BYTES, &size);

    if (board == NULL || bytes == NULL || size % DRIP_BLOCK_BYTES != 0 ||
        board->card_wanted == CARD_NONE || at > board->card_count ||
        size / DRIP_BLOCK_BYTES > board->card_count - at) {
        return refused();
    }
    if (board->card_wanted == CARD_WRITE) {
        memcpy(bytes, board->card_data + at * DRIP_BLOCK_BYTES, size);
    } else {
        memcpy(board->card_data + at * DRIP_BLOCK_BYTES, bytes, size);
    }
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

mp_obj_t drip_mp_board_done(mp_obj_t state, mp_obj_t what, mp_obj_t code)
{
    board_t *board = board_of(state);
    int kind = (int)mp_obj_get_int(what);

    if (board == NULL) {
        return refused();
    }
    if (kind == DONE_CARD) {
        board->card_result = (int32_t)mp_obj_get_int(code);
        board->card_wanted = CARD_NONE;
    } else if (kind == DONE_FLASH) {
        board->flash_result = (int32_t)mp_obj_get_int(code);
        board->flash_wanted = 0;
    } else {
        board->reset_wanted = 0;
    }
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

/* Returns 1 when the frame was taken: it stays as it is until the result is there. */
mp_obj_t drip_mp_board_offer(mp_obj_t state, mp_obj_t frame)
{
    board_t *board = board_of(state);
    drip_frame_t offered;

    memset(&offered, 0, sizeof(offered));
    offered.data = drip_mp_bytes(frame, MP_BUFFER_READ, 1, &offered.size);
    if (board == NULL || offered.data == NULL || !board->is_started) {
        return refused();
    }
    offered.time_us = board->now_us;
    return MP_OBJ_NEW_SMALL_INT(drip_device_offer(&board->device, &offered));
}

mp_obj_t drip_mp_board_config(mp_obj_t state, mp_obj_t key, mp_obj_t value)
{
    board_t *board = board_of(state);

    if (board == NULL || !board->is_started) {
        return refused();
    }
    return MP_OBJ_NEW_SMALL_INT(drip_device_config(&board->device, (uint16_t)mp_obj_get_int(key),
                                                   (uint32_t)mp_obj_get_int(value)));
}

/* Returns 1 and struct result in `out` when no frame is in work. */
mp_obj_t drip_mp_board_result(mp_obj_t state, mp_obj_t out)
{
    board_t *board = board_of(state);
    drip_result_t result;
    void *bytes = drip_mp_bytes(out, MP_BUFFER_RW, sizeof(result), NULL);
    int is_idle;

    if (board == NULL || bytes == NULL || !board->is_started) {
        return refused();
    }
    is_idle = drip_device_idle(&board->device, &result);
    memcpy(bytes, &result, sizeof(result));
    return MP_OBJ_NEW_SMALL_INT(is_idle);
}

mp_obj_t drip_mp_board_status(mp_obj_t state, mp_obj_t out)
{
    board_t *board = board_of(state);
    void *bytes = drip_mp_bytes(out, MP_BUFFER_RW, sizeof(drip_status_t), NULL);
    drip_status_t status;

    if (board == NULL || bytes == NULL || !board->is_started) {
        return refused();
    }
    drip_device_status(&board->device, &status);
    memcpy(bytes, &status, sizeof(status));
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}
