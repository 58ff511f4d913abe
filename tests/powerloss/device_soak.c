/* 24 simulated hours of a whole device: frames, pulls over a bad line, a card that fails or is taken out,
 * resets and power cuts.
 *
 * Usage: device_soak MODEL SEED [HOURS]
 *
 * Frames go in through the device's own functions; all else the host learns and does by requests: STATUS,
 * SYNC, READ, ACK, RESET. Bytes of the line flip, transfers of the card fail. A frame counts as stored
 * when its result said so and STATUS showed nothing pending afterwards, with the log still in the same
 * boot. In the end what was pulled is what counted as stored; what was pending when the card or the
 * power failed may be there or not. */
#include "board.h"

enum {
    MOST = 1 << 17,
    BLOCKS = 8192,
    UNIT = 64,
    SEGMENT = 128,
    SEGMENT_BYTES = SEGMENT * DRIP_BLOCK_BYTES,
    FRAME_BYTES = 4096,
    PERIOD_US = 1000000,
    FAULT_ONE_IN = 100,
    NOISE_ONE_IN = 20000,
    ALL = 0x7fffffff, /* steps */
};

enum { PENDING, STORED, UNSURE };

typedef struct {
    uint64_t seq;
    uint32_t size;
    uint32_t boot;
    uint8_t state;
    uint8_t pulled;
} entry_t;

static board_t board;
static entry_t *entries; /* by token */
static uint32_t tokens;
static uint32_t waiting; /* first token that is not settled */
static uint64_t chance;
static uint64_t cuts, resets, pulls, removals, dropped, unimportant, refused;

/* ---------------------------------------------------------------- frames */

static void make_frame(uint32_t token, uint8_t *out, uint32_t size)
{
    uint32_t i;

    sim_payload(token, out, size);
    for (i = 0; size == 64 && i < size; i++) {
        out[i] &= 15; /* as the digits are */
    }
    memcpy(out, &token, size < 4 ? size : 4);
}

static void settle(uint8_t state)
{
    for (; waiting <= tokens; waiting++) {
        entries[waiting].state = state;
    }
}

/* What the device still knows of is stored once nothing is pending. */
static int judge(const drip_status_t *status)
{
    MUST(status->frames_seen ==
             status->frames_kept + status->frames_dropped_policy + status->frames_dropped_card,
         "the counters do not add up");
    for (; waiting <= tokens && status->boot_id != entries[waiting].boot; waiting++) {
        entries[waiting].state = UNSURE;
    }
    if (status->card_state == DRIP_CARD_READY && status->records_pending == 0) {
        settle(STORED);
    }
    return status->card_state == DRIP_CARD_READY || status->card_state == DRIP_CARD_FULL;
}

/* Asks for the status over the line. */
static int look_at_status(drip_status_t *status)
{
    uint8_t body[DRIP_MAX_BODY_BYTES];
    int size = board_ask(&board, DRIP_FRAME_STATUS, body, 0);

    MUST(size >= (int)(sizeof(drip_response_t) + sizeof(*status)), "no answer to STATUS: %d", size);
    memcpy(status, body + sizeof(drip_response_t), sizeof(*status));
    return judge(status);
}

/* The log has taken the frame: from now on it is pending, in this boot. */
static void note(uint32_t size)
{
    drip_status_t status;
    drip_result_t result;

    (void)drip_device_idle(&board.device, &result);
    if (result.token == tokens + 1 && result.keep) {
        drip_device_status(&board.device, &status);
        MUST(tokens < MOST - 2, "too many records");
        tokens++;
        entries[tokens].seq = result.seq;
        entries[tokens].size = size;
        entries[tokens].boot = status.boot_id;
    }
}

/* Offers a frame and lets the device work on it, to the end or for some steps only. */
static void offer(uint32_t steps)
{
    static uint8_t data[FRAME_BYTES]; /* the device reads it until it is idle */
    uint32_t size = sim_below(&chance, 3) ? 64 : 1 + sim_below(&chance, FRAME_BYTES);
    uint64_t until = board.card.now_us + 10000000;
    uint32_t before = tokens;
    drip_frame_t frame;
    drip_result_t result;

    make_frame(tokens + 1, data, size);
    memset(&frame, 0, sizeof(frame));
    frame.data = data;
    frame.size = size;
    frame.time_us = board.card.now_us - board.boot_us;
    frame.token = tokens + 1;
    if (drip_device_offer(&board.device, &frame) != DRIP_ERR_OK) {
        refused++;
        return;
    }
    while (!drip_device_idle(&board.device, &result) && steps-- > 0) {
        MUST(board.card.now_us < until, "a frame takes for ever");
        board_run(&board, 1);
        note(size);
    }
    if (drip_device_idle(&board.device, &result) && tokens == before) {
        dropped += result.reason != 0;
        unimportant += result.reason == 0;
    }
}

/* ---------------------------------------------------------------- the host */

static void look(void *context, const sim_record_t *record)
{
    uint8_t expected[FRAME_BYTES];
    uint32_t token;

    (void)context;
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT != DRIP_RECORD_KIND_FRAME) {
        return;
    }
    for (token = tokens; token > 0 && entries[token].seq != record->header.seq; token--) {
    }
    MUST(token > 0 && entries[token].size == record->header.payload_bytes, "record %u is invented",
         (unsigned)record->header.seq);
    make_frame(token, expected, entries[token].size);
    MUST(memcmp(expected, record->payload, entries[token].size) == 0, "frame %u differs", token);
    entries[token].pulled = 1;
}

/* One READ. Returns the bytes read, or the error. */
static int read_at(uint64_t position, uint8_t *out, uint32_t size)
{
    uint8_t body[DRIP_MAX_BODY_BYTES];
    drip_read_request_t asked = {position, size, 0, 0};
    drip_read_response_t answer;
    int got;

    memcpy(body, &asked, sizeof(asked));
    got = board_ask(&board, DRIP_FRAME_READ, body, sizeof(asked));
    if (got < (int)sizeof(answer)) {
        return DRIP_ERR_TIMEOUT;
    }
    memcpy(&answer, body, sizeof(answer));
    if (answer.code < 0) {
        return answer.code;
    }
    MUST(answer.position == position && answer.size <= size &&
             answer.size == (uint32_t)got - sizeof(answer),
         "READ answers with something else");
    memcpy(out, body + sizeof(answer), answer.size);
    return (int)answer.size;
}

/* Reads what is durable of a segment; a block that cannot be read is zeros. */
static int fetch(uint32_t segment, uint64_t durable, uint8_t *out)
{
    uint64_t base = (uint64_t)segment * SEGMENT_BYTES;
    uint32_t size = 0;
    uint32_t tries = 0;

    while (size < SEGMENT_BYTES && base + size < durable) {
        int got = read_at(base + size, out + size, tries > 2 ? DRIP_BLOCK_BYTES : 1024);

        if (got == DRIP_ERR_IO && ++tries < 20) {
            continue;
        }
        if (got == DRIP_ERR_RANGE) {
            break;
        }
        if (got <= 0) {
            return got < 0 ? got : DRIP_ERR_RANGE;
        }
        tries = 0;
        size += (uint32_t)got;
    }
    return (int)size;
}

static int acknowledge(uint32_t segment, uint32_t count, uint32_t digest)
{
    uint8_t body[DRIP_MAX_BODY_BYTES];
    drip_ack_t asked = {segment, count, digest, 0};
    drip_ack_response_t answer;

    memcpy(body, &asked, sizeof(asked));
    if (board_ask(&board, DRIP_FRAME_ACK, body, sizeof(asked)) < (int)sizeof(answer)) {
        return DRIP_ERR_TIMEOUT;
    }
    memcpy(&answer, body, sizeof(answer));
    return answer.code;
}

/* Reads segment after segment and acknowledges what was read, as far as the card allows. */
static int pull(void)
{
    static uint8_t data[SEGMENT_BYTES];
    uint8_t body[DRIP_MAX_BODY_BYTES];
    drip_status_t status;
    uint32_t tries;

    pulls++;
    for (tries = 0; tries < 400; tries++) {
        uint32_t segment, count = 0, digest = 0;
        int got;

        (void)board_ask(&board, DRIP_FRAME_SYNC, body, 0);
        if (!look_at_status(&status)) {
            return 0;
        }
        if (status.log_acked >= status.log_end) {
            return 1;
        }
        segment = (uint32_t)(status.log_acked / SEGMENT_BYTES);
        got = fetch(segment, status.log_durable, data);
        if (got < 0) {
            continue;
        }
        sim_parse_segment(&board.device.log.super, segment, data, (uint32_t)got, look, NULL, &count,
                          &digest);
        (void)acknowledge(segment, count, digest);
    }
    return 0;
}

/* ---------------------------------------------------------------- what goes wrong */

static void boot(void)
{
    board_boot(&board);
    MUST(drip_device_config(&board.device, DRIP_CONFIG_COMMIT_BYTES, 8192) == DRIP_ERR_OK,
         "config");
}

static void cut(void)
{
    cuts++;
    offer(sim_below(&chance, 60));
    board_cut(&board);
    board.card.now_us += sim_below(&chance, 10000000);
    boot();
}

static void reset(void)
{
    uint8_t body[DRIP_MAX_BODY_BYTES];
    uint32_t before = board.resets;
    drip_status_t status;

    resets++;
    if (look_at_status(&status) &&
        board_ask(&board, DRIP_FRAME_RESET, body, 0) >= (int)sizeof(drip_response_t)) {
        uint64_t until = board.card.now_us + 5000000;

        while (board.resets == before && board.card.now_us < until) {
            board_run(&board, 1000);
        }
        MUST(board.resets > before, "it does not restart");
        boot();
    }
}

static void take_out(void)
{
    removals++;
    board.card.absent = 1;
    board_run(&board, 100000 + sim_below(&chance, 5000000));
    offer(ALL);
    board.card.absent = 0;
    board_run(&board, 2500000);
}

static void happen(void)
{
    drip_status_t status;

    switch (sim_below(&chance, 1200)) {
    case 0:
    case 1:
    case 2:
        cut();
        break;
    case 3:
        reset();
        break;
    case 4:
        take_out();
        break;
    case 5:
        (void)pull();
        break;
    case 6:
    case 7:
    case 8:
    case 9:
        (void)look_at_status(&status);
        break;
    default:
        break;
    }
}

static void report(void)
{
    uint64_t stored = 0, pulled = 0, lost = 0, unsure = 0;
    uint32_t token;

    for (token = 1; token <= tokens; token++) {
        stored += entries[token].state == STORED;
        pulled += entries[token].pulled;
        lost += entries[token].state == STORED && !entries[token].pulled;
        unsure += entries[token].state != STORED && entries[token].pulled;
        if (entries[token].state == STORED && !entries[token].pulled) {
            fprintf(stderr, "not pulled: frame %u, record %llu, boot %u\n", token,
                    (unsigned long long)entries[token].seq, entries[token].boot);
        }
    }
    printf("%u kept, %llu stored, %llu pulled, %llu lost, %llu pending at a failure yet stored, "
           "%llu not stored, %llu unimportant, %llu refused, %llu faults, %llu cuts, %llu resets, "
           "%llu removals, %llu pulls, %u requests repeated\n",
           tokens, (unsigned long long)stored, (unsigned long long)pulled, (unsigned long long)lost,
           (unsigned long long)unsure, (unsigned long long)dropped, (unsigned long long)unimportant,
           (unsigned long long)refused, (unsigned long long)board.card.faults,
           (unsigned long long)cuts, (unsigned long long)resets, (unsigned long long)removals,
           (unsigned long long)pulls, board.repeated);
    MUST(lost == 0, "%llu stored records were not pulled", (unsigned long long)lost);
    MUST(pulled == stored + unsure, "the sets differ");
}

int main(int argc, char **argv)
{
    uint64_t hours = argc > 3 ? strtoull(argv[3], NULL, 10) : 24;
    drip_status_t status;
    char repeat[200];
    uint32_t tries = 0;

    MUST(argc > 2, "see the usage");
    chance = strtoull(argv[2], NULL, 10);
    snprintf(repeat, sizeof(repeat), "device_soak %s %s %llu", argv[1], argv[2],
             (unsigned long long)hours);
    sim_repeat = repeat;
    entries = calloc(MOST, sizeof(*entries));
    waiting = 1;
    board_init(&board, BLOCKS, FRAME_BYTES, 1);
    board_model(&board, argv[1]);
    board.chance = chance + 99;
    board.card.chance = chance + 77;
    board.card.only_errors = 1;
    sim_format(&board.card, UNIT, SEGMENT, &chance);
    boot();
    board_run(&board, 1000000);
    board.card.fault_one_in = FAULT_ONE_IN;
    board.noise_one_in = NOISE_ONE_IN;
    while (board.card.now_us < hours * 3600 * 1000000) {
        board_run(&board, PERIOD_US / 2 + sim_below(&chance, PERIOD_US * 3));
        drip_device_status(&board.device, &status);
        (void)judge(&status);
        offer(ALL);
        happen();
    }
    board.card.fault_one_in = 0;
    board_run(&board, 3000000);
    while (!pull()) {
        MUST(++tries < 10, "the last pull does not end");
    }
    MUST(look_at_status(&status) && status.log_acked == status.log_end, "something is left");
    report();
    return 0;
}
