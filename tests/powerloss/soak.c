/* 24 simulated hours of recording on a card that fails, with pulls and power cuts.
 *
 * Usage: soak errors|lies SEED [HOURS]
 *
 * errors  transfers fail now and then, writes in the middle: in the end what was pulled is what the log
 *         called durable, and what was still pending at a cut or a failure may be there or not
 * lies    reads also come with flipped bits or without their end, without saying so, but at most once in a
 *         mount: nothing is lost, and nothing is invented
 */
#include "sim.h"

enum {
    MOST = 1 << 17,
    BLOCKS = 8192,
    PERIOD_US = 1000000,
    FAULT_ONE_IN = 100,
};

typedef struct {
    uint64_t seq;
    uint32_t size;
    uint8_t durable; /* 0 pending, 1 the log said so, 2 it was pending when something failed */
    uint8_t pulled;
} entry_t;

static entry_t *entries; /* by token */
static uint32_t tokens;
static uint32_t waiting; /* first token that is not settled */
static drip_log_t the_log;
static uint64_t cuts_made, pulls, remounts;

static void look(void *context, const sim_record_t *record)
{
    uint32_t token = (uint32_t)record->header.raw_score;
    uint8_t expected[4096];

    (void)context;
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT != DRIP_RECORD_KIND_FRAME) {
        return;
    }
    MUST(token > 0 && token <= tokens && entries[token].seq == record->header.seq &&
             entries[token].size == record->header.payload_bytes,
         "record %u is invented", (unsigned)record->header.seq);
    sim_payload(token, expected, entries[token].size);
    MUST(memcmp(expected, record->payload, entries[token].size) == 0, "frame %u differs", token);
    entries[token].pulled = 1;
}

static void settle(uint8_t durable)
{
    for (; waiting <= tokens; waiting++) {
        entries[waiting].durable = durable;
    }
}

static int usable(void)
{
    return the_log.card == DRIP_CARD_READY || the_log.card == DRIP_CARD_FULL;
}

static void mount(sim_card_t *card, const drip_log_config_t *config)
{
    uint32_t tries = 0;

    settle(2);
    do {
        MUST(++tries < 1000, "the card is never mounted again");
        remounts++;
        card->busy = 0;
        card->sparing = 1;
        card->has_lied = 0;
        (void)drip_log_mount(&the_log, &card->port, config, 0, 0);
        sim_drive(&the_log);
        card->sparing = 0;
    } while (!usable());
}

/* What the host does: read everything, and acknowledge as far as it goes. */
static void pull(void)
{
    uint32_t tries = 0;

    pulls++;
    (void)drip_log_sync(&the_log);
    sim_drive(&the_log);
    sim_read_all(&the_log, look, NULL);
    while (usable() && tries++ < 200 && drip_log_acked(&the_log) < drip_log_durable(&the_log)) {
        /* A segment is only acknowledged when what was read of it agrees with the device. */
        (void)sim_ack_oldest(&the_log, look, NULL);
    }
}

static void append(uint64_t *chance)
{
    uint32_t size = 1 + sim_below(chance, sim_below(chance, 10) == 0 ? 4000 : 900);
    drip_record_header_t header;
    uint8_t payload[4096];
    int result;

    memset(&header, 0, sizeof(header));
    header.payload_bytes = size;
    header.raw_score = (int32_t)(tokens + 1);
    sim_payload(tokens + 1, payload, size);
    result = drip_log_append(&the_log, &header, payload);
    MUST(result == DRIP_ERR_OK || result == DRIP_ERR_BUSY || result == DRIP_ERR_FULL ||
             result == DRIP_ERR_NO_CARD,
         "append: %d", result);
    if (result == DRIP_ERR_OK) {
        tokens++;
        entries[tokens].seq = header.seq;
        entries[tokens].size = size;
    }
    sim_drive(&the_log);
}

/* Power fails: the write in flight is cut, memory is gone. */
static void cut(sim_card_t *card, uint64_t *chance)
{
    drip_record_header_t header;
    uint8_t payload[4096];
    uint32_t steps = sim_below(chance, 12);

    cuts_made++;
    memset(&header, 0, sizeof(header));
    header.payload_bytes = 1 + sim_below(chance, 3000);
    header.raw_score = (int32_t)(tokens + 1);
    sim_payload(tokens + 1, payload, header.payload_bytes);
    if (drip_log_append(&the_log, &header, payload) == DRIP_ERR_OK) {
        tokens++;
        entries[tokens].seq = header.seq;
        entries[tokens].size = header.payload_bytes;
    }
    while (steps-- > 0) {
        (void)drip_log_step(&the_log);
    }
    if (card->busy == 2) {
        memcpy(card->data + (size_t)card->block * DRIP_BLOCK_BYTES, card->from,
               sim_below(chance, DRIP_BLOCK_BYTES));
    }
    memset(&the_log, 0, sizeof(the_log));
}

static void report(const char *mode, uint64_t faults)
{
    uint64_t durable = 0, pulled = 0, lost = 0, unsure = 0;
    uint32_t token;

    for (token = 1; token <= tokens; token++) {
        durable += entries[token].durable == 1;
        pulled += entries[token].pulled;
        lost += entries[token].durable == 1 && !entries[token].pulled;
        unsure += entries[token].durable == 2 && entries[token].pulled;
    }
    printf("%s: %u records, %llu durable, %llu pulled, %llu lost, %llu pending at a failure yet "
           "stored, %llu faults, %llu cuts, %llu mounts, %llu pulls\n",
           mode, tokens, (unsigned long long)durable, (unsigned long long)pulled,
           (unsigned long long)lost, (unsigned long long)unsure, (unsigned long long)faults,
           (unsigned long long)cuts_made, (unsigned long long)remounts, (unsigned long long)pulls);
    MUST(lost == 0, "%llu durable records are lost", (unsigned long long)lost);
    MUST(pulled == durable - lost + unsure, "the sets differ");
}

int main(int argc, char **argv)
{
    int lies = argc > 1 && strcmp(argv[1], "lies") == 0;
    uint64_t chance = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t hours = argc > 3 ? strtoull(argv[3], NULL, 10) : 24;
    drip_log_config_t config = {1000, 8192, DRIP_FULL_OVERWRITE_ACKED, 0, {0}};
    char repeat[100];
    sim_card_t card;

    snprintf(repeat, sizeof(repeat), "soak %s %s %llu", lies ? "lies" : "errors",
             argc > 2 ? argv[2] : "1", (unsigned long long)hours);
    sim_repeat = repeat;
    entries = calloc(MOST, sizeof(*entries));
    waiting = 1;
    sim_card_init(&card, BLOCKS);
    card.chance = chance + 77;
    card.only_errors = !lies;
    sim_format(&card, 64, 128, &chance);
    memset(&the_log, 0, sizeof(the_log));
    mount(&card, &config);
    card.fault_one_in = FAULT_ONE_IN;
    while (card.now_us < hours * 3600 * 1000000) {
        card.now_us += PERIOD_US / 2 + sim_below(&chance, PERIOD_US * 3);
        sim_drive(&the_log);
        if (usable() && drip_log_pending(&the_log) == 0) {
            settle(1);
        }
        if (!usable()) {
            mount(&card, &config);
        }
        append(&chance);
        if (usable() && drip_log_pending(&the_log) == 0) {
            settle(1);
        }
        if (sim_below(&chance, 300) == 0) {
            cut(&card, &chance);
            mount(&card, &config);
        }
        if (sim_below(&chance, 900) == 0) {
            pull();
            if (usable() && drip_log_pending(&the_log) == 0) {
                settle(1);
            }
        }
        MUST(tokens < MOST - 2, "too many records");
    }
    card.fault_one_in = 0;
    if (!usable()) {
        mount(&card, &config);
    }
    pull();
    settle(1);
    report(lies ? "lies" : "errors", card.faults);
    sim_card_free(&card);
    free(entries);
    return 0;
}
