#include "sim.h"

#include <stdarg.h>

const char *sim_repeat = "";

_Noreturn void sim_fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "FAILED: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nrepeat: %s\n", sim_repeat);
    va_end(arguments);
    exit(1);
}

uint32_t sim_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ (z >> 31)) >> 16);
}

uint32_t sim_below(uint64_t *state, uint32_t limit)
{
    return sim_random(state) % limit;
}

/* ---------------------------------------------------------------- card */

static uint64_t now(void *context)
{
    return ((sim_card_t *)context)->now_us;
}

static int size_of(void *context, uint32_t *blocks)
{
    sim_card_t *card = context;

    *blocks = card->blocks;
    return card->absent ? DRIP_ERR_NO_CARD : DRIP_ERR_OK;
}

static int start(sim_card_t *card, uint8_t kind, uint32_t block, uint32_t count)
{
    MUST(card->busy == 0, "two transfers at a time");
    MUST(count > 0 && block < card->blocks && count <= card->blocks - block, "outside of the card");
    if (card->absent) {
        return DRIP_ERR_NO_CARD;
    }
    card->busy = kind;
    card->block = block;
    card->count = count;
    return DRIP_ERR_OK;
}

static int start_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    ((sim_card_t *)context)->to = data;
    return start(context, 1, block, count);
}

static int start_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    ((sim_card_t *)context)->from = data;
    return start(context, 2, block, count);
}

static void put(sim_card_t *card, uint32_t block, const uint8_t *data)
{
    if (card->writes != NULL) {
        MUST(card->written < card->room, "the workload writes too much");
        card->writes[card->written].block = block;
        card->writes[card->written].epoch = card->epoch;
        memcpy(card->writes[card->written].data, data, DRIP_BLOCK_BYTES);
    }
    card->written++;
    memcpy(card->data + (size_t)block * DRIP_BLOCK_BYTES, data, DRIP_BLOCK_BYTES);
    if (card->unreadable != NULL) {
        card->unreadable[block] = 0;
    }
}

static int finish_read(sim_card_t *card, int fault)
{
    uint32_t i;
    size_t size = (size_t)card->count * DRIP_BLOCK_BYTES;

    card->reads += card->count;
    for (i = 0; card->unreadable != NULL && i < card->count; i++) {
        if (card->unreadable[card->block + i]) {
            return DRIP_ERR_IO;
        }
    }
    memcpy(card->to, card->data + (size_t)card->block * DRIP_BLOCK_BYTES, size);
    if (!fault) {
        return DRIP_ERR_OK;
    }
    switch (card->only_errors || (card->sparing && card->has_lied) ? 0
                                                                   : sim_below(&card->chance, 3)) {
    case 0: /* an error */
        return DRIP_ERR_IO;
    case 1: /* a bit flips on the wire */
        card->has_lied = 1;
        card->to[sim_below(&card->chance, (uint32_t)size)] ^=
            (uint8_t)(1u << sim_below(&card->chance, 8));
        return DRIP_ERR_OK;
    default: /* the end is missing */
        card->has_lied = 1;
        i = sim_below(&card->chance, (uint32_t)size);
        memset(card->to + i, 0xFF, size - i);
        return DRIP_ERR_OK;
    }
}

static int finish_write(sim_card_t *card, int fault)
{
    uint32_t count = fault ? sim_below(&card->chance, card->count) : card->count;
    uint32_t i;

    for (i = 0; i < count; i++) {
        put(card, card->block + i, card->from + (size_t)i * DRIP_BLOCK_BYTES);
    }
    return fault ? DRIP_ERR_IO : DRIP_ERR_OK;
}

static int poll(void *context)
{
    sim_card_t *card = context;
    uint8_t busy = card->busy;
    int fault = card->fault_one_in != 0 && sim_below(&card->chance, card->fault_one_in) == 0;

    MUST(busy != 0, "nothing to poll");
    card->busy = 0;
    if (card->absent) {
        return DRIP_ERR_NO_CARD;
    }
    card->faults += (uint64_t)fault;
    return busy == 1 ? finish_read(card, fault) : finish_write(card, fault);
}

void sim_card_init(sim_card_t *card, uint32_t blocks)
{
    memset(card, 0, sizeof(*card));
    card->blocks = blocks;
    card->data = calloc(blocks, DRIP_BLOCK_BYTES);
    card->port.context = card;
    card->port.time_us = now;
    card->port.card_blocks = size_of;
    card->port.card_read = start_read;
    card->port.card_write = start_write;
    card->port.card_poll = poll;
}

void sim_card_free(sim_card_t *card)
{
    free(card->data);
    free(card->unreadable);
    free(card->writes);
}

/* ---------------------------------------------------------------- log */

void sim_format(sim_card_t *card, uint32_t unit_blocks, uint32_t segment_blocks, uint64_t *chance)
{
    drip_log_geometry_t geometry;
    drip_superblock_t work;
    int i;

    memset(&geometry, 0, sizeof(geometry));
    for (i = 0; i < 16; i++) {
        geometry.uuid[i] = (uint8_t)sim_random(chance);
    }
    geometry.blocks = card->blocks;
    geometry.unit_blocks = unit_blocks;
    geometry.segment_blocks = segment_blocks;
    MUST(drip_log_format(&card->port, &geometry, &work) == DRIP_ERR_OK, "format");
}

void sim_drive(drip_log_t *log)
{
    uint32_t steps = 0;
    uint64_t durable = drip_log_durable(log);
    sim_card_t *card = log->port->context;

    while (drip_log_step(log)) {
        if (drip_log_durable(log) != durable) {
            durable = drip_log_durable(log);
            card->epoch++; /* what the log calls durable stays */
        }
        MUST(++steps < SIM_STEPS, "the log never comes to rest");
    }
    card->epoch += drip_log_durable(log) != durable;
}

void sim_mount(drip_log_t *log, sim_card_t *card, const drip_log_config_t *config)
{
    card->busy = 0;
    memset(log, 0, sizeof(*log));
    (void)drip_log_mount(log, &card->port, config, 0, 0);
    sim_drive(log);
}

void sim_payload(uint32_t token, uint8_t *out, uint32_t size)
{
    uint64_t state = token;
    uint32_t i;

    for (i = 0; i < size; i += 4) {
        uint32_t word = token % 7 == 0 ? 0 : sim_random(&state);

        memcpy(out + i, &word, size - i < 4 ? size - i : 4);
    }
}

int64_t sim_append(drip_log_t *log, uint32_t token, uint32_t size, uint16_t percentile,
                   uint16_t class_1)
{
    drip_record_header_t header;
    uint8_t *payload = malloc(size);
    uint32_t tries = 0;
    int result;

    memset(&header, 0, sizeof(header));
    header.payload_bytes = size;
    header.raw_score = (int32_t)token;
    header.percentile = percentile;
    header.class_1 = class_1;
    sim_payload(token, payload, size);
    while ((result = drip_log_append(log, &header, payload)) == DRIP_ERR_BUSY) {
        MUST(++tries < 100, "always busy");
        sim_drive(log);
    }
    sim_drive(log);
    free(payload);
    if (result == DRIP_LOG_REFUSED) {
        return 0;
    }
    return result < 0 ? result : (int64_t)header.seq;
}
