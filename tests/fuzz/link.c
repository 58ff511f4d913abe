/* Bytes on the line: into a link alone, or into a whole device with card, flash and model.
 *
 * The input is a byte of mode, for a device the length (u16) and bytes of its fixed model, then pieces:
 * noise as it is, frames that the target encodes, time that passes, a line or card that fails. Afterwards a
 * link must still receive a frame, and a device answer HELLO, within a bounded number of steps. */
#include "drip/device.h"

#include "blob.h"
#include "board.h"

enum {
    ANY_SCHEMA = 0, /* in a HELLO: stands for this build's, which changes */

    MODE_LINK = 1,  /* a link alone */
    MODE_MODEL = 2, /* the device has a fixed model */
    MODE_CARD = 4,  /* it has a card with an empty log */
    MODE_FLASH = 8, /* it takes models */
    MODE_SENSOR = 0x80,
    MODE_CHUNKS = 0x70, /* most bytes that the line moves at a time; 0 = any */

    PIECE_NOISE = 0,
    PIECE_FRAME = 1,
    PIECE_TIME = 2,
    PIECE_FAULT = 3,
    FAULT_SETTINGS = 0xFF, /* in place of a fault: a restart with settings of any content */

    FRAME_MAX = DRIP_LINK_FRAME_BYTES + DRIP_LINK_FRAME_BYTES / 254 + 8,
    ARENA_BYTES = 1 << 14,
    CAPTURE_BYTES = 512,
    SCRATCH_BYTES = 512,
    SLOT_BYTES = 4096,
    JOURNAL_BYTES = 4 * DRIP_SLOT_ENTRY_BYTES,
    CARD_BLOCKS = 48,
    SEGMENT_BLOCKS = 8,
    PIECE_STEPS = 50,
    PATIENCE = 40,        /* steps without a byte taken; then the rest of a piece is lost */
    WORK_LIMIT = 1 << 21, /* multiply-accumulates of a hostile model */
    SENSOR_PERIOD_US = 30000,
    PIECES = 200,
    LAST_STEPS = 20000,
    LAST_ID = 0xBEEF,
};

typedef struct {
    board_t board;
    drip_device_t *device;
    drip_device_memory_t memory;
    drip_link_t host;
    drip_port_t host_port;
    uint32_t hellos;
    uint64_t sensor_us; /* last frame */
} world_t;

/* ---------------------------------------------------------------- what is sent */

/* Encodes a frame, with independent code: zero, COBS, zero. Returns the size. */
static size_t encode(uint8_t *out, uint8_t type, uint16_t id, const uint8_t *body, uint32_t size)
{
    uint8_t plain[DRIP_LINK_FRAME_BYTES];
    size_t at = 1;
    size_t code = 1;
    uint32_t crc;
    uint32_t i;

    MUST(size <= DRIP_MAX_BODY_BYTES);
    plain[0] = type;
    plain[1] = 0;
    plain[2] = (uint8_t)id;
    plain[3] = (uint8_t)(id >> 8);
    if (size > 0) {
        memcpy(plain + 4, body, size);
    }
    crc = drip_crc32(0, plain, 4 + size);
    memcpy(plain + 4 + size, &crc, 4);
    out[0] = 0;
    out[at++] = 1;
    for (i = 0; i < size + 8; i++) {
        if (plain[i] != 0) {
            out[at++] = plain[i];
            out[code]++;
        }
        if (plain[i] == 0 || out[code] == 0xFF) {
            code = at;
            out[at++] = 1;
        }
    }
    out[at++] = 0;
    return at;
}

/* Takes the next frame from the input: type, id, length, body. */
static size_t next_frame(fuzz_input_t *input, uint8_t *out)
{
    uint8_t body[DRIP_MAX_BODY_BYTES];
    const uint8_t type = fuzz_u8(input);
    const uint16_t id = fuzz_u8(input);
    uint32_t size = fuzz_u16(input) % (DRIP_MAX_BODY_BYTES + 1u);

    size = (uint32_t)fuzz_take(input, body, size);
    if (type == DRIP_FRAME_HELLO && size >= sizeof(drip_hello_request_t)) {
        drip_hello_request_t hello;

        memcpy(&hello, body, sizeof(hello));
        if (hello.schema_hash == ANY_SCHEMA) {
            hello.schema_hash = drip_wire_schema_hash();
        }
        memcpy(body, &hello, sizeof(hello));
    }
    return encode(out, type, id, body, size);
}

/* Up to 255 bytes as they are. */
static size_t next_noise(fuzz_input_t *input, uint8_t *out)
{
    const size_t size = fuzz_u8(input);

    return fuzz_take(input, out, size);
}

/* ---------------------------------------------------------------- a link alone */

static void link_drain(drip_link_t *link, board_t *board, uint32_t *last)
{
    drip_link_frame_t frame;
    /* A poll takes a byte at least, finds at most one frame. */
    size_t polls = 2 * board->line_left + 200;

    while (board->line_left > 0 || drip_link_more(link)) {
        MUST(polls-- > 0);
        if (drip_link_poll(link, &frame)) {
            MUST(frame.body_size <= DRIP_MAX_BODY_BYTES);
            *last = frame.header.type | (uint32_t)frame.header.id << 8;
            (void)drip_crc32(0, frame.body, frame.body_size);
            if (drip_link_body(link) != NULL) {
                memcpy(drip_link_body(link), frame.body, frame.body_size);
                MUST(drip_link_send(link, frame.header.type, frame.header.id, frame.body_size) ==
                     DRIP_ERR_OK);
            }
        }
    }
}

static void fuzz_link(fuzz_input_t *input, uint32_t chunk)
{
    uint8_t bytes[FRAME_MAX];
    board_t board;
    drip_link_t *link = (drip_link_t *)(void *)fuzz_block(sizeof(*link), 0xA5);
    uint32_t last = 0;

    board_init(&board);
    board.line_gives = chunk;
    board.line_takes = chunk;
    drip_link_init(link, &board.port);
    while (input->left > 0) {
        const uint8_t kind = fuzz_u8(input);

        board.line = bytes;
        board.line_left = kind % 2 == 0 ? next_noise(input, bytes) : next_frame(input, bytes);
        board.line_takes = kind & 0x80 ? 0 : chunk;
        link_drain(link, &board, &last);
        board.sent_size = 0;
    }
    /* Noise may have ended in the middle of a frame; the delimiter in front ends it. */
    board.line = bytes;
    board.line_left = encode(bytes, DRIP_FRAME_STATUS, LAST_ID, NULL, 0);
    link_drain(link, &board, &last);
    MUST(last == (DRIP_FRAME_STATUS | (uint32_t)LAST_ID << 8));
    free(link);
}

/* ---------------------------------------------------------------- a device */

/* Reads what the device sent; all of it must be whole frames. */
static void listen(world_t *world)
{
    drip_link_frame_t frame;

    while (world->board.sent_size != 0 || drip_link_more(&world->host)) {
        if (drip_link_poll(&world->host, &frame) &&
            frame.header.type == (DRIP_FRAME_HELLO | DRIP_RESPONSE) && frame.header.id == LAST_ID) {
            MUST(frame.body_size >= DRIP_RESPONSE_BYTES + DRIP_HELLO_BYTES);
            world->hellos++;
        }
    }
    MUST(world->host.errors == 0);
}

static void boot(world_t *world)
{
    board_restart(&world->board);
    memset(world->device, 0xA5, sizeof(*world->device));
    MUST(drip_device_init(world->device, &world->board.port, &world->memory) == DRIP_ERR_OK);
    drip_link_init(&world->host, &world->host_port);
}

static void step(world_t *world)
{
    const int more = drip_device_step(world->device);

    MUST(more == 0 || more == 1);
    world->board.time_us += more ? 100 : 1000;
    if (world->board.reset) {
        boot(world);
    }
    listen(world);
}

/* Puts bytes on the line and lets the device take them and work a little. */
static void send(world_t *world, const uint8_t *bytes, size_t size, uint32_t steps)
{
    uint32_t stuck = 0;

    world->board.line = bytes;
    world->board.line_left = size;
    while (world->board.line_left > 0 && stuck < PATIENCE) {
        const size_t left = world->board.line_left;

        step(world);
        stuck = world->board.line_left == left ? stuck + 1 : 0;
    }
    world->board.line_left = 0;
    for (; steps > 0; steps--) {
        step(world);
    }
}

/* Settings that another firmware may have left in the journal: right checksum, any values. */
static void leave_settings(world_t *world, fuzz_input_t *input)
{
    drip_config_entry_t entry;

    if (world->board.port.flash_map == NULL) {
        return;
    }
    fuzz_take(input, &entry, sizeof(entry));
    entry.magic = DRIP_CONFIG_MAGIC;
    entry.version = DRIP_SLOT_VERSION;
    entry.crc = drip_crc32(0, &entry, sizeof(entry) - sizeof(entry.crc));
    memset(world->board.flash[2], 0xFF, JOURNAL_BYTES);
    memcpy(world->board.flash[2], &entry, sizeof(entry));
    boot(world);
}

static void fault(world_t *world, fuzz_input_t *input)
{
    const uint8_t what = fuzz_u8(input);

    if (what == FAULT_SETTINGS) {
        leave_settings(world, input);
        return;
    }
    world->board.line_takes = what & 1 ? 0 : UINT32_MAX;
    world->board.card_gone = (what >> 1) & 1;
    world->board.card_faults = (what >> 2) & 7;
    world->board.card_polls = what >> 5;
}

static void pass(world_t *world, fuzz_input_t *input)
{
    world->board.time_us += fuzz_u8(input) * 20000u;
    step(world);
    step(world);
}

static void ask_hello(world_t *world)
{
    uint8_t bytes[FRAME_MAX];
    drip_hello_request_t hello = {sizeof(hello), 1, DRIP_PROTOCOL, 0, 0, 0};
    uint32_t steps = LAST_STEPS;

    world->hellos = 0;
    world->board.line_takes = UINT32_MAX;
    world->board.line_gives = UINT32_MAX;
    world->board.card_gone = 0;
    world->board.card_faults = 0;
    world->board.card_polls = 0;
    hello.schema_hash = drip_wire_schema_hash();
    while (world->hellos == 0) {
        world->board.line = bytes;
        world->board.line_left =
            encode(bytes, DRIP_FRAME_HELLO, LAST_ID, (const uint8_t *)&hello, sizeof(hello));
        /* A restart may have swallowed it, so it is asked again. */
        do {
            MUST(steps-- > 0);
            step(world);
        } while (world->hellos == 0 &&
                 (world->board.line_left > 0 || world->device->holding || steps % 64 != 0));
    }
}

static void format(world_t *world)
{
    drip_log_geometry_t geometry = {{1, 2, 3}, 0, CARD_BLOCKS, 2, SEGMENT_BLOCKS};
    drip_superblock_t work;

    board_add_card(&world->board, CARD_BLOCKS);
    MUST(drip_log_format(&world->board.port, &geometry, &work) == DRIP_ERR_OK);
}

/* How long a model may take is not what this target is about. */
static int is_quick(const uint8_t *model, uint32_t size)
{
    drip_nn_t nn;
    uint64_t work = 0;
    uint32_t i;

    if (drip_nn_open(&nn, model, size) != DRIP_ERR_OK) {
        return 1;
    }
    for (i = 0; i < nn.op_count; i++) {
        const drip_blob_op_t *op = &nn.ops[i];
        const drip_blob_tensor_t *out = &nn.tensors[op->out];
        const uint32_t unit = nn.tensors[op->in0].size + op->weights_bytes;

        work += (uint64_t)unit * out->h * out->w + 100u * out->size;
    }
    return work <= WORK_LIMIT;
}

/* Takes a model from the input; the caller frees it. */
static uint8_t *take_model(fuzz_input_t *input, uint32_t *size)
{
    const size_t wanted = fuzz_u16(input) % 8192u;
    const size_t n = wanted < input->left ? wanted : input->left;
    uint8_t *bytes = fuzz_block(n, 0);
    uint8_t *model;

    fuzz_take(input, bytes, n);
    *size = fuzz_fix_blob(bytes, (uint32_t)n);
    model = fuzz_block(*size, 0);
    memcpy(model, bytes, *size);
    free(bytes);
    if (!is_quick(model, *size)) {
        free(model);
        model = NULL;
    }
    return model;
}

/* The board's own frames fit the model, but for every fourth. */
static int sensor_poll(void *context, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    world_t *world = context; /* the board is its first member */
    const uint32_t wanted =
        world->device->has_model ? world->device->nn.input.desc.frame_bytes : 64;
    drip_rng_t rng;

    MUST(buffer_bytes == CAPTURE_BYTES);
    if (world->board.time_us - world->sensor_us < SENSOR_PERIOD_US) {
        return 0;
    }
    world->sensor_us = world->board.time_us;
    drip_rng_seed(&rng, (uint32_t)world->sensor_us);
    frame->size = drip_rng_next(&rng) % 4 != 0 ? wanted : drip_rng_next(&rng) % (2 * CAPTURE_BYTES);
    drip_rng_fill(&rng, buffer, frame->size < buffer_bytes ? frame->size : buffer_bytes);
    frame->time_us = world->sensor_us;
    return 1;
}

static void prepare(world_t *world, fuzz_input_t *input, uint8_t mode)
{
    drip_device_memory_t *memory = &world->memory;

    memset(world, 0, sizeof(*world));
    board_init(&world->board);
    world->host_port = world->board.port;
    world->host_port.link_read = board_host_read;
    world->host_port.link_write = board_host_write;
    memory->arena = fuzz_block(ARENA_BYTES, 0);
    memory->arena_bytes = ARENA_BYTES;
    memory->capture = fuzz_block(CAPTURE_BYTES, 0);
    memory->capture_bytes = CAPTURE_BYTES;
    memory->scratch = fuzz_block(SCRATCH_BYTES, 0);
    memory->scratch_bytes = SCRATCH_BYTES;
    if (mode & MODE_MODEL) {
        memory->fixed_model = take_model(input, &memory->fixed_model_bytes);
    }
    if (mode & MODE_SENSOR) {
        world->board.port.sensor_poll = sensor_poll;
    }
    if (mode & MODE_CARD) {
        format(world);
    }
    if (mode & MODE_FLASH) {
        board_add_flash(&world->board, SLOT_BYTES, JOURNAL_BYTES);
    }
    world->device = (drip_device_t *)(void *)fuzz_block(sizeof(*world->device), 0);
}

static void fuzz_device(fuzz_input_t *input, uint8_t mode, uint32_t chunk)
{
    uint8_t bytes[FRAME_MAX];
    world_t world;
    uint32_t pieces = PIECES;

    prepare(&world, input, mode);
    world.board.line_gives = chunk;
    boot(&world);
    while (input->left > 0 && pieces-- > 0) {
        const uint8_t piece = fuzz_u8(input);
        const uint32_t steps = piece >> 2 < PIECE_STEPS ? piece >> 2 : PIECE_STEPS;

        if (piece % 4 == PIECE_NOISE) {
            send(&world, bytes, next_noise(input, bytes), steps);
        } else if (piece % 4 == PIECE_FRAME) {
            send(&world, bytes, next_frame(input, bytes), steps);
        } else if (piece % 4 == PIECE_TIME) {
            pass(&world, input);
        } else {
            fault(&world, input);
        }
    }
    ask_hello(&world);
    free(world.device);
    free(world.memory.arena);
    free(world.memory.capture);
    free(world.memory.scratch);
    free((void *)(uintptr_t)world.memory.fixed_model);
    board_free(&world.board);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t input = {data, size};
    const uint8_t mode = fuzz_u8(&input);
    const uint32_t chunk =
        (mode & MODE_CHUNKS) == 0 ? UINT32_MAX : (uint32_t)(mode & MODE_CHUNKS) >> 4;

    if (mode & MODE_LINK) {
        fuzz_link(&input, chunk);
    } else {
        fuzz_device(&input, mode, chunk);
    }
    return 0;
}
