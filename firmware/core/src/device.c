#include "device_internal.h"

#include <string.h>

enum {
    SERVICE_ROUNDS = 4,       /* answers and log blocks per step, beside the frame in work */
    DEFAULT_COMMIT_MS = 1000, /* the most that power loss costs */
    DEFAULT_COMMIT_BYTES = 8192,
    DEFAULT_CLASS_FLOOR = 2, /* frames of each class in a segment that evicting spares */
    DEFAULT_SEED = 1,
};

uint64_t drip_device_now(const drip_device_t *device)
{
    return device->port->time_us(device->port->context);
}

/* ------------------------------------------------------------------ start */

static int aligned(const void *address, uint32_t to)
{
    return ((uintptr_t)address & (to - 1)) == 0;
}

int drip_device_init(drip_device_t *device, const drip_port_t *port,
                     const drip_device_memory_t *memory)
{
    drip_policy_config_t policy;

    if (memory->arena == NULL || memory->capture == NULL || memory->scratch == NULL ||
        !aligned(memory->arena, 16) || !aligned(memory->capture, 8) ||
        !aligned(memory->scratch, 4)) {
        return DRIP_ERR_ARGUMENT;
    }
    if (memory->capture_frames > 1 && memory->captured == NULL) {
        return DRIP_ERR_ARGUMENT;
    }
    memset(device, 0, sizeof(*device));
    device->port = port;
    device->memory = *memory;
    if (memory->capture_frames == 0) {
        device->memory.capture_frames = 1;
    }
    device->seed = DEFAULT_SEED;
    device->powered_at_us = drip_device_now(device);
    device->log_config.commit_ms = DEFAULT_COMMIT_MS;
    device->log_config.commit_bytes = DEFAULT_COMMIT_BYTES;
    device->log_config.full_mode = DRIP_FULL_OVERWRITE_ACKED;
    device->log_config.class_floor = DEFAULT_CLASS_FLOOR;
    drip_policy_defaults(&policy);
    drip_policy_init(&device->policy, &policy);
    drip_link_init(&device->link, port);
    drip_device_baud_init(device);
    drip_device_open_active(
        device, drip_slot_open(&device->slot, port, memory->arena_bytes, &device->nn) >= 0);
    drip_device_config_restore(device);
    drip_device_mount(device);
    device->card_state = device->log.card;
    device->events_due = 1u << DRIP_EVENT_BOOT;
    return DRIP_ERR_OK;
}

/* ------------------------------------------------------------------ one frame */

void drip_device_begin(drip_device_t *device, const drip_frame_t *frame, int only_score)
{
    device->frame = *frame;
    device->scoring = only_score ? 1 : 0;
    device->quantised = 0;
    device->outcome = DRIP_ERR_OK;
    device->done_type = 0;
    memset(&device->result, 0, sizeof(device->result));
    device->result.token = frame->token;
    device->started_us = drip_device_now(device);
    device->stage = STAGE_DECIDE;
    if (device->has_model && frame->size == device->nn.input.desc.frame_bytes) {
        memcpy(device->result.model_id, device->nn.header.model_id,
               sizeof(device->result.model_id));
        device->stage = STAGE_QUANTISE;
    }
    if (!only_score) {
        device->status.frames_seen++;
        if (device->status.queue_high_water == 0) {
            device->status.queue_high_water = 1; /* a frame that the caller holds itself */
        }
    }
}

static void frame_done(drip_device_t *device, uint8_t stage)
{
    uint64_t took_us = drip_device_now(device) - device->started_us;

    device->stage = stage;
    if (stage == STAGE_IDLE) {
        drip_device_release(device);
    }
    device->status.infer_us = took_us > 0xFFFFFFFFu ? 0xFFFFFFFFu : (uint32_t)took_us;
    if (device->pending_type == DRIP_FRAME_FEED || device->pending_type == DRIP_FRAME_SCORE) {
        device->pending_ready = 1;
    }
}

static void quantise_piece(drip_device_t *device)
{
    int loaded = drip_nn_load(&device->nn, &device->frame, device->quantised);

    device->quantised = (uint32_t)loaded;
    if (device->quantised == device->nn.input.elements) {
        drip_policy_look(&device->policy, &device->nn);
        drip_nn_begin(&device->nn);
        device->stage = STAGE_INFER;
    }
}

static void score(drip_device_t *device)
{
    drip_score_result_t scored;
    drip_result_t *result = &device->result;
    drip_rng_t rng = device->score.rng;

    drip_score_compute(&device->score, device->memory.scratch, &scored);
    result->raw_score = scored.raw;
    result->percentile = scored.percentile;
    result->class_1 = scored.class_1;
    result->class_2 = scored.class_2;
    result->logit_1 = scored.logit_1;
    result->logit_2 = scored.logit_2;
    if (device->scoring) {
        device->score.rng = rng; /* a question must not change later answers */
        frame_done(device, STAGE_IDLE);
        return;
    }
    device->status.histogram[scored.percentile / (65536 / DRIP_HISTOGRAM_BINS)]++;
    device->stage = STAGE_DECIDE;
}

static void count_reasons(drip_status_t *status, uint8_t reason)
{
    status->kept_threshold += (reason & DRIP_REASON_THRESHOLD) != 0;
    status->kept_random += (reason & DRIP_REASON_RANDOM_SHARE) != 0;
    status->kept_schedule += (reason & DRIP_REASON_SCHEDULE) != 0;
    status->kept_no_model += (reason & DRIP_REASON_NO_MODEL) != 0;
    status->kept_floor += (reason & DRIP_REASON_FLOOR) != 0;
    status->kept_burst += (reason & DRIP_REASON_BURST) != 0;
}

static void decide(drip_device_t *device)
{
    const drip_result_t *result = &device->result;
    drip_score_result_t scored;
    int scorable = device->has_model && device->frame.size == device->nn.input.desc.frame_bytes;
    int reason;

    if (drip_device_waits_for_state(device)) {
        return;
    }
    memset(&scored, 0, sizeof(scored));
    scored.raw = result->raw_score;
    scored.percentile = result->percentile;
    scored.class_1 = result->class_1;
    scored.class_2 = result->class_2;
    scored.logit_1 = result->logit_1;
    scored.logit_2 = result->logit_2;
    drip_device_pace(device);
    reason = drip_policy_decide(&device->policy, scorable ? &device->score : NULL,
                                scorable ? &scored : NULL);
    device->result.threshold = device->policy.held;
    device->result.drop = device->policy.drop;
    if (device->policy.drift_due) {
        device->policy.drift_due = 0;
        device->events_due = (uint8_t)(device->events_due | 1u << DRIP_EVENT_DRIFT);
    }
    device->result.reason = (uint8_t)(reason > 0 ? reason : 0);
    if (device->result.reason != 0) {
        count_reasons(&device->status, device->result.reason);
        device->stage = STAGE_APPEND;
        return;
    }
    device->status.frames_dropped_policy++;
    frame_done(device, STAGE_IDLE);
}

static void describe(const drip_device_t *device, drip_record_header_t *header)
{
    const drip_result_t *result = &device->result;

    memset(header, 0, sizeof(*header));
    header->payload_bytes = device->frame.size;
    header->time_us = device->frame.time_us;
    header->flags = result->reason;
    header->stream_id = device->frame.stream_id;
    header->raw_score = result->raw_score;
    header->percentile = result->percentile;
    header->policy_id = device->policy.config.kind;
    header->score_kind = device->score.kind;
    header->class_1 = result->class_1;
    header->class_2 = result->class_2;
    header->logit_1 = result->logit_1;
    header->logit_2 = result->logit_2;
    memcpy(header->model_id, result->model_id, sizeof(header->model_id));
}

static void append(drip_device_t *device)
{
    drip_record_header_t header;
    int code;

    if (drip_device_card_state(device) == DRIP_CARD_MOUNTING &&
        drip_device_now(device) - device->mount_us < DEVICE_MOUNT_WAIT_US) {
        return;
    }
    describe(device, &header);
    code = drip_log_append(&device->log, &header, device->frame.data);
    if (code == DRIP_ERR_BUSY) {
        return;
    }
    if (code == DRIP_LOG_REFUSED) {
        device->result.reason = 0;
        device->result.drop = DRIP_DROP_SCORE;
        device->result.threshold = drip_log_level(&device->log);
        device->status.frames_dropped_policy++;
        frame_done(device, STAGE_IDLE);
        return;
    }
    if (code < 0) {
        device->status.frames_dropped_card++;
        device->outcome = code;
        frame_done(device, STAGE_IDLE);
        return;
    }
    device->status.frames_kept++;
    device->result.keep = 1;
    device->result.seq = header.seq;
    device->kept.class_1 = header.class_1;
    device->kept.percentile = header.percentile;
    device->kept.seq = header.seq;
    device->events_due = (uint8_t)(device->events_due | 1u << DRIP_EVENT_KEPT);
    frame_done(device, STAGE_LOGGING);
}

int drip_device_reserved(const drip_device_t *device)
{
    uint8_t type = device->pending_type;

    return type == DRIP_FRAME_FEED || type == DRIP_FRAME_SCORE ||
           (type == DRIP_FRAME_MODEL && drip_device_needs_quiet(device->model_op));
}

/* Returns 1 when the frame in work has more to do at once. */
static int frame_step(drip_device_t *device)
{
    switch (device->stage) {
    case STAGE_IDLE:
        return drip_device_next(device);
    case STAGE_QUANTISE:
        quantise_piece(device);
        return 1;
    case STAGE_INFER:
        if (drip_nn_step(&device->nn, DEVICE_STEP_MACS) == 0) {
            device->stage = STAGE_SCORE;
        }
        return 1;
    case STAGE_SCORE:
        score(device);
        return 1;
    case STAGE_DECIDE:
        decide(device);
        return device->stage != STAGE_DECIDE;
    case STAGE_APPEND:
        append(device);
        /* A log that makes room has begun to work just now. */
        return device->stage != STAGE_APPEND || device->log.evict_stage != 0;
    default:
        if (!drip_log_busy(&device->log)) {
            device->stage = STAGE_IDLE;
            drip_device_release(device);
            return 1;
        }
        return 0;
    }
}

/* ------------------------------------------------------------------ everything else */

static void forget_stale_feed(drip_device_t *device)
{
    if (device->feed_bytes != 0 &&
        drip_device_now(device) - device->feed_us > DEVICE_FEED_TIMEOUT_US) {
        device->feed_bytes = 0;
    }
}

void drip_device_restart(drip_device_t *device)
{
    device->reset_wanted = 1;
    device->reset_us = drip_device_now(device);
}

/* Before a restart the answer goes out, and what was logged and learnt becomes durable, within a time
 * limit. */
static void restart(drip_device_t *device)
{
    uint64_t took_us = drip_device_now(device) - device->reset_us;
    /* A host that reads no answer does not keep anything from the card. */
    int answering = drip_link_busy(&device->link) && took_us < DEVICE_RESET_TIMEOUT_US / 2;

    if (took_us <= DEVICE_RESET_TIMEOUT_US &&
        (answering || !drip_device_idle(device, NULL) ||
         (drip_log_sync(&device->log) == DRIP_ERR_OK && drip_log_pending(&device->log) != 0) ||
         !drip_device_state_saved(device))) {
        return;
    }
    device->reset_wanted = 0;
    device->saving = 0;
    device->port->reset(device->port->context);
}

/* One round of link and log. Returns 1 when another one has something to do at once. */
static int service(drip_device_t *device)
{
    int more = 0;
    /* The chunk of a MODEL request lies in the link's buffer until flash has taken it. */
    int taken = device->holding || device->pending_type == DRIP_FRAME_MODEL;

    if (taken) {
        drip_link_pump(&device->link);
    } else {
        device->holding = (uint8_t)drip_link_poll(&device->link, &device->held);
        drip_device_baud_step(device, device->holding);
    }
    more |= drip_device_card_step(device);
    more |= drip_device_pending(device);
    if (device->holding && device->pending_type != DRIP_FRAME_MODEL &&
        drip_device_request(device, &device->held) == REQUEST_DONE) {
        device->holding = 0;
        more = 1;
    }
    more |= drip_device_stream_step(device);
    if (!device->holding) {
        more |= drip_link_more(&device->link);
    }
    return more;
}

int drip_device_step(drip_device_t *device)
{
    int more = 0;
    int round;

    if (device->port->watchdog != NULL) {
        device->port->watchdog(device->port->context);
    }
    for (round = 0; round < SERVICE_ROUNDS; round++) {
        more = service(device);
        if (!more) {
            break;
        }
    }
    if (device->pending_type == DRIP_FRAME_MODEL) {
        more |= drip_device_model_step(device);
    }
    forget_stale_feed(device);
    drip_device_watch_card(device);
    drip_device_state_step(device);
    drip_device_clock_step(device);
    drip_device_event(device);
    more |= drip_device_capture(device);
    more |= frame_step(device);
    if (device->reset_wanted) {
        restart(device);
    }
    return more;
}

int drip_device_offer(drip_device_t *device, const drip_frame_t *frame)
{
    if (frame->size == 0 || frame->size > DRIP_MAX_FRAME_BYTES) {
        return DRIP_ERR_ARGUMENT;
    }
    if (device->stage != STAGE_IDLE || device->queue.count != 0 || device->reset_wanted ||
        drip_device_reserved(device)) {
        return DRIP_ERR_BUSY;
    }
    drip_device_begin(device, frame, 0);
    return DRIP_ERR_OK;
}

void drip_device_lost(drip_device_t *device, uint32_t frames)
{
    device->status.frames_dropped_queue += frames;
}

int drip_device_idle(const drip_device_t *device, drip_result_t *result)
{
    if (result != NULL) {
        *result = device->result;
    }
    return device->stage == STAGE_IDLE && device->queue.count == 0;
}
