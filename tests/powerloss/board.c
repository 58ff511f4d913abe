#include "board.h"

enum { ARENA = 1 << 16, SCRATCH = 4096, STEP_US = 20, REPEAT_US = 1500000, GIVE_UP_US = 30000000 };

/* ---------------------------------------------------------------- port */

static uint64_t time_us(void *context)
{
    board_t *board = context;

    return board->card.now_us - board->boot_us;
}

static int put(line_t *line, const uint8_t *data, uint32_t size)
{
    uint32_t i;

    for (i = 0; i < size && line->end - line->begin < LINE_BYTES; i++) {
        line->bytes[line->end++ % LINE_BYTES] = data[i];
    }
    return (int)i;
}

static int take(board_t *board, line_t *line, uint8_t *data, uint32_t size)
{
    uint32_t i;

    for (i = 0; i < size && line->begin != line->end; i++) {
        data[i] = line->bytes[line->begin++ % LINE_BYTES];
        if (board->noise_one_in != 0 && sim_below(&board->chance, board->noise_one_in) == 0) {
            data[i] ^= (uint8_t)(1u << sim_below(&board->chance, 8));
        }
    }
    return (int)i;
}

static int link_read(void *context, uint8_t *data, uint32_t size)
{
    board_t *board = context;

    return take(board, &board->to_device, data, size);
}

static int link_write(void *context, const uint8_t *data, uint32_t size)
{
    return put(&((board_t *)context)->to_host, data, size);
}

static int host_read(void *context, uint8_t *data, uint32_t size)
{
    board_t *board = context;

    return take(board, &board->to_host, data, size);
}

static int host_write(void *context, const uint8_t *data, uint32_t size)
{
    return put(&((board_t *)context)->to_device, data, size);
}

static int card_blocks(void *context, uint32_t *blocks)
{
    sim_card_t *card = &((board_t *)context)->card;

    return card->port.card_blocks(card, blocks);
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    board_t *board = context;

    board->ready_us = board->card.now_us + board->read_us;
    return board->card.port.card_read(&board->card, block, data, count);
}

static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    board_t *board = context;

    board->ready_us = board->card.now_us + board->write_us;
    if (board->busy_us != NULL) {
        board->ready_us += board->busy_us(board);
    }
    return board->card.port.card_write(&board->card, block, data, count);
}

static int card_poll(void *context)
{
    board_t *board = context;

    return board->card.now_us < board->ready_us ? DRIP_ERR_BUSY
                                                : board->card.port.card_poll(&board->card);
}

static void reset(void *context)
{
    ((board_t *)context)->resets++;
}

/* ---------------------------------------------------------------- board */

void board_init(board_t *board, uint32_t blocks, uint32_t frame_bytes, uint32_t frames)
{
    drip_device_memory_t *memory = &board->memory;

    memset(board, 0, sizeof(*board));
    sim_card_init(&board->card, blocks);
    board->port.context = board;
    board->port.time_us = time_us;
    board->port.link_read = link_read;
    board->port.link_write = link_write;
    board->port.card_blocks = card_blocks;
    board->port.card_read = card_read;
    board->port.card_write = card_write;
    board->port.card_poll = card_poll;
    board->port.reset = reset;
    board->host_port.context = board;
    board->host_port.link_read = host_read;
    board->host_port.link_write = host_write;
    memory->arena = aligned_alloc(16, ARENA);
    memory->arena_bytes = ARENA;
    memory->capture_bytes = frame_bytes;
    memory->capture_frames = (uint16_t)frames;
    memory->capture = aligned_alloc(16, (((frame_bytes + 7) & ~7u) * frames + 15) & ~15u);
    memory->captured = frames > 1 ? calloc(frames, sizeof(drip_frame_t)) : NULL;
    memory->scratch = aligned_alloc(16, SCRATCH);
    memory->scratch_bytes = SCRATCH;
}

void board_model(board_t *board, const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *blob = aligned_alloc(16, 1 << 20);
    size_t size = file == NULL ? 0 : fread(blob, 1, 1 << 20, file);

    MUST(size > 0 && size < 1 << 20, "cannot read the model %s", path);
    fclose(file);
    board->memory.fixed_model = blob;
    board->memory.fixed_model_bytes = (uint32_t)size;
}

void board_boot(board_t *board)
{
    board->card.busy = 0;
    board->boot_us = board->card.now_us;
    memset(&board->device, 0xA5, sizeof(board->device));
    MUST(drip_device_init(&board->device, &board->port, &board->memory) == DRIP_ERR_OK, "start");
    board->to_device.begin = board->to_device.end;
    board->to_host.begin = board->to_host.end;
    drip_link_init(&board->host, &board->host_port);
}

void board_cut(board_t *board)
{
    sim_card_t *card = &board->card;

    if (card->busy == 2) {
        memcpy(card->data + (size_t)card->block * DRIP_BLOCK_BYTES, card->from,
               sim_below(&board->chance, DRIP_BLOCK_BYTES));
    }
    card->busy = 0;
}

static void step(board_t *board)
{
    board->card.now_us += drip_device_step(&board->device) ? STEP_US : 1000;
}

void board_run(board_t *board, uint64_t us)
{
    uint64_t until = board->card.now_us + us;

    while (board->card.now_us < until) {
        step(board);
    }
}

int board_settle(board_t *board)
{
    uint64_t until = board->card.now_us + 10000000;

    while (board->card.now_us < until) {
        if (!drip_device_step(&board->device) && drip_device_idle(&board->device, NULL)) {
            return 1;
        }
        board->card.now_us += STEP_US;
    }
    return 0;
}

static int answered(board_t *board, uint8_t type, uint8_t *body)
{
    drip_link_frame_t frame;

    if (!drip_link_poll(&board->host, &frame) || frame.header.type != (type | DRIP_RESPONSE) ||
        frame.header.id != board->request_id) {
        return -1;
    }
    memcpy(body, frame.body, frame.body_size);
    return (int)frame.body_size;
}

int board_ask(board_t *board, uint8_t type, uint8_t *body, uint32_t size)
{
    uint64_t begun = board->card.now_us;
    uint64_t sent = 0;
    uint8_t request[DRIP_MAX_BODY_BYTES];
    int result;

    memcpy(request, body, size);
    board->request_id++;
    for (;;) {
        if (sent == 0 || board->card.now_us - sent > REPEAT_US) {
            uint8_t *to = drip_link_body(&board->host);

            if (to != NULL) {
                board->repeated += sent != 0;
                sent = board->card.now_us;
                memcpy(to, request, size);
                MUST(drip_link_send(&board->host, type, board->request_id, size) == DRIP_ERR_OK,
                     "send");
            }
        }
        result = answered(board, type, body);
        if (result >= 0) {
            return result;
        }
        if (board->card.now_us - begun > GIVE_UP_US) {
            return -1;
        }
        step(board);
    }
}
