/* Frames of a sensor on a card that is busy: how many places keep them all.
 *
 * Usage: device_queue PLACES BUSY_MS ONE_IN RARE_MS RARE_ONE_IN SECONDS [BYTES [PER_SECOND]]
 *
 * PLACES 0 stands for the queue of a board that has the RAM. One write in ONE_IN leaves the card busy for BUSY_MS, one in RARE_ONE_IN for RARE_MS. The sensor holds
 * one finished frame; when the next is finished before the device took it, that one is dropped, and
 * counted here and by the port. In the end every frame is on the card or among those counted. */
#include "board.h"

enum {
    BLOCKS = 1 << 18,
    UNIT = 64,
    SEGMENT = 512,
    READ_US = 1000,
    WRITE_US = 2000,
    MOST = 1 << 17
};

static board_t board;
static uint32_t busy_ms, one_in, rare_ms, rare_one_in;
static uint32_t frame_bytes = 1024;
static uint64_t period_us = 50000;
static uint64_t next_us = (uint64_t)-1; /* when the next frame is finished */
static uint64_t ready_us;
static uint32_t number; /* of the frame that the sensor holds */
static uint32_t finished, dropped, found;
static uint8_t ready;
static uint8_t *state; /* by number: 1 taken, 2 found */

static uint32_t busy(board_t *at)
{
    uint32_t us = 0;

    if (rare_one_in != 0 && sim_below(&at->chance, rare_one_in) == 0) {
        us = rare_ms * 1000;
    } else if (one_in != 0 && sim_below(&at->chance, one_in) == 0) {
        us = busy_ms * 1000;
    }
    return us;
}

/* The sensor's own side: it goes on whatever the device does. */
static void finish_frames(void)
{
    while (board.card.now_us >= next_us) {
        if (ready) {
            dropped++;
            drip_device_lost(&board.device, 1);
        }
        ready = 1;
        ready_us = next_us - board.boot_us;
        number = ++finished;
        next_us += period_us;
    }
}

static int sensor_poll(void *context, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame)
{
    (void)context;
    finish_frames();
    if (!ready) {
        return 0;
    }
    MUST(buffer_bytes == frame_bytes, "a place of %u bytes", buffer_bytes);
    ready = 0;
    state[number] = 1;
    sim_payload(number, buffer, frame_bytes);
    memcpy(buffer, &number, sizeof(number));
    frame->size = frame_bytes;
    frame->time_us = ready_us;
    return 1;
}

static void look(void *context, const sim_record_t *record)
{
    uint8_t expected[DRIP_MAX_FRAME_BYTES];
    uint32_t token;

    (void)context;
    if (record->header.flags >> DRIP_RECORD_KIND_SHIFT != DRIP_RECORD_KIND_FRAME) {
        return;
    }
    memcpy(&token, record->payload, sizeof(token));
    MUST(token > 0 && token <= finished && state[token] == 1, "frame %u is there twice or invented",
         token);
    sim_payload(token, expected, frame_bytes);
    MUST(record->header.payload_bytes == frame_bytes &&
             memcmp(expected + 4, record->payload + 4, frame_bytes - 4) == 0,
         "frame %u differs", token);
    state[token] = 2;
    found++;
}

int main(int argc, char **argv)
{
    uint32_t places = argc > 1 ? (uint32_t)atoi(argv[1]) : 16;
    uint32_t seconds = argc > 6 ? (uint32_t)atoi(argv[6]) : 60;
    drip_status_t status;
    uint64_t end_us;

    MUST(argc > 6, "see the usage");
    busy_ms = (uint32_t)atoi(argv[2]);
    one_in = (uint32_t)atoi(argv[3]);
    rare_ms = (uint32_t)atoi(argv[4]);
    rare_one_in = (uint32_t)atoi(argv[5]);
    places = places == 0 ? DRIP_QUEUE_FRAMES : places;
    frame_bytes = argc > 7 ? (uint32_t)atoi(argv[7]) : frame_bytes;
    period_us = argc > 8 ? 1000000u / (uint32_t)atoi(argv[8]) : period_us;
    state = calloc(MOST, 1);
    board_init(&board, BLOCKS, frame_bytes, places);
    board.chance = 12345;
    board.port.sensor_poll = sensor_poll;
    sim_format(&board.card, UNIT, SEGMENT, &board.chance);
    board.read_us = READ_US;
    board.write_us = WRITE_US;
    board_boot(&board);
    board_run(&board, 2000000);
    board.busy_us = busy;
    next_us = board.card.now_us;
    end_us = next_us + (uint64_t)seconds * 1000000;
    while (board.card.now_us < end_us) {
        board_run(&board, 1000);
    }
    next_us = (uint64_t)-1;
    MUST(board_settle(&board), "it never comes to rest");
    board_run(&board, 5000000);
    drip_device_status(&board.device, &status);
    board.busy_us = NULL;
    board.read_us = board.write_us = 0;
    board.port.sensor_poll = NULL;
    sim_read_all(&board.device.log, look, NULL);
    printf("%u frames, %u dropped, %u stored, high-water %u of %u places, %u ms per frame\n",
           finished, dropped, found, status.queue_high_water, places, (uint32_t)(period_us / 1000));
    MUST(status.frames_dropped_queue == dropped, "%u drops were counted",
         (unsigned)status.frames_dropped_queue);
    MUST(status.frames_seen == finished - dropped && status.frames_kept == found &&
             found == finished - dropped,
         "frames are missing: %u seen, %u kept", (unsigned)status.frames_seen,
         (unsigned)status.frames_kept);
    return 0;
}
