/* Requests of the host and their answers. */
#include "device_internal.h"

#include <string.h>

uint8_t *drip_device_body(drip_device_t *device)
{
    return device->pending_type == DRIP_FRAME_READ || device->reader.reading
               ? NULL
               : drip_link_body(&device->link);
}

void drip_device_send(drip_device_t *device, uint8_t request_type, uint16_t id, uint32_t size)
{
    drip_link_send(&device->link, (uint8_t)(request_type | DRIP_RESPONSE), id, size);
}

int drip_device_answer(drip_device_t *device, const drip_link_frame_t *request, int code,
                       uint32_t detail)
{
    drip_response_t response;
    uint8_t *body = drip_device_body(device);

    if (body == NULL) {
        return REQUEST_HOLD;
    }
    response.code = (int16_t)code;
    response.detail = (uint16_t)detail;
    memcpy(body, &response, sizeof(response));
    drip_device_send(device, request->header.type, request->header.id, sizeof(response));
    return REQUEST_DONE;
}

void drip_device_defer(drip_device_t *device, const drip_link_frame_t *request)
{
    device->pending_type = request->header.type;
    device->pending_id = request->header.id;
    device->pending_ready = 0;
}

/* ------------------------------------------------------------------ who and how */

static uint32_t capabilities(const drip_device_t *device)
{
    uint32_t bits = DRIP_CAP_FEED | DRIP_CAP_CARD | DRIP_CAP_STREAM;

    if (device->slot.port->flash_map != NULL &&
        device->slot.port->flash_map(device->slot.port->context, 0) != NULL) {
        bits |= DRIP_CAP_MODEL_PUSH;
    }
    if (drip_slot_keeps_settings(&device->slot)) {
        bits |= DRIP_CAP_CONFIG;
    }
    if (device->port->link_baud != NULL) {
        bits |= DRIP_CAP_BAUD;
    }
    if (device->port->sensor_poll != NULL) {
        bits |= DRIP_CAP_SENSOR;
    }
    return bits;
}

static void fill_hello(const drip_device_t *device, drip_hello_t *hello)
{
    memset(hello, 0, sizeof(*hello));
    hello->size = sizeof(*hello);
    hello->version = 1;
    hello->protocol = DRIP_PROTOCOL;
    hello->schema_hash = drip_wire_schema_hash();
    hello->firmware = DRIP_FIRMWARE_VERSION;
    memcpy(hello->device_id, device->port->device_id, sizeof(hello->device_id));
    memcpy(hello->port, device->port->name, sizeof(hello->port));
    hello->op_bitmap = drip_nn_op_bitmap();
    hello->capabilities = capabilities(device);
    hello->max_body = DRIP_MAX_BODY_BYTES;
    hello->arena_bytes = device->memory.arena_bytes;
    hello->slot_bytes = (hello->capabilities & DRIP_CAP_MODEL_PUSH) ? device->port->slot_bytes : 0;
    hello->frame_bytes = device->memory.capture_bytes;
    hello->baud = device->baud.present;
    hello->baud_most = device->port->link_baud != NULL ? device->port->baud_most : 0;
    hello->card_state = drip_device_card_state(device);
    if (drip_device_has_log(device)) {
        memcpy(hello->log_uuid, device->log.super.log_uuid, sizeof(hello->log_uuid));
        hello->boot_id = device->log.boot_id;
    }
    if (device->has_model) {
        memcpy(hello->model_id, device->nn.header.model_id, sizeof(hello->model_id));
        hello->class_count = device->nn.header.class_count;
        hello->score_kind = device->score.kind;
    }
}

static int request_hello(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_hello_request_t asked;
    drip_response_t response = {DRIP_ERR_OK, 0};
    drip_hello_t hello;
    uint8_t *body = drip_device_body(device);

    if (request->body_size < sizeof(asked)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    /* Most cards are read by then, and the host learns at once which log it talks to. */
    if (device->log.card == DRIP_CARD_MOUNTING &&
        drip_device_now(device) - device->mount_us < DEVICE_HELLO_WAIT_US) {
        return REQUEST_HOLD;
    }
    memcpy(&asked, request->body, sizeof(asked));
    drip_device_stream_stop(device); /* whoever wanted them has gone */
    device->schema_ok = asked.schema_hash == drip_wire_schema_hash();
    fill_hello(device, &hello);
    memcpy(body, &response, sizeof(response));
    memcpy(body + sizeof(response), &hello, sizeof(hello));
    drip_device_send(device, request->header.type, request->header.id,
                     sizeof(response) + sizeof(hello));
    return REQUEST_DONE;
}

/* Bit by bit: a 64-bit division would call the compiler's library. */
static uint32_t microseconds_to_ms(uint64_t us)
{
    uint32_t rest = 0;
    uint32_t ms = 0;
    int bit;

    for (bit = 0; bit < 64; bit++) {
        rest = rest << 1 | (uint32_t)(us >> 63);
        us <<= 1;
        ms <<= 1;
        if (rest >= 1000) {
            rest -= 1000;
            ms |= 1;
        }
    }
    return ms;
}

static uint8_t model_state(const drip_device_t *device)
{
    if (!device->has_model) {
        return DRIP_SLOT_EMPTY;
    }
    /* A fixed model is part of the image: it boots. */
    return device->slot.active == DRIP_SLOT_NONE
               ? DRIP_SLOT_CONFIRMED
               : (uint8_t)device->slot.entry[device->slot.active].state;
}

void drip_device_status(const drip_device_t *device, drip_status_t *status)
{
    *status = device->status;
    status->size = sizeof(*status);
    status->version = 1;
    drip_policy_status(&device->policy, status);
    status->uptime_ms = microseconds_to_ms(drip_device_now(device));
    status->card_state = drip_device_card_state(device);
    status->model_state = model_state(device);
    status->link_errors = device->link.errors;
    status->card_errors = device->log.errors;
    /* What a failing card had not taken was kept, but could not be stored. */
    status->frames_kept -= drip_log_lost(&device->log);
    status->frames_dropped_card += drip_log_lost(&device->log);
    if (device->log.last_error < 0) {
        status->last_error = device->log.last_error;
    }
    if (drip_device_has_log(device)) {
        status->log_tail = drip_log_tail(&device->log);
        status->log_durable = drip_log_durable(&device->log);
        status->log_end = drip_log_end(&device->log);
        status->log_acked = drip_log_acked(&device->log);
        status->log_capacity = drip_log_capacity(&device->log);
        status->records_pending = drip_log_pending(&device->log);
        status->boot_id = device->log.boot_id;
        status->log_damaged = device->log.damaged;
    }
    status->records_evicted = drip_log_evicted(&device->log);
}

static void ask_board(const drip_device_t *device, drip_status_t *status)
{
    const drip_port_t *port = device->port;

    if (port->board_status != NULL) {
        port->board_status(port->context, status);
    }
}

static int request_status(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_response_t response = {DRIP_ERR_OK, 0};
    drip_status_t status;
    uint8_t *body = drip_device_body(device);

    drip_device_status(device, &status);
    ask_board(device, &status);
    memcpy(body, &response, sizeof(response));
    memcpy(body + sizeof(response), &status, sizeof(status));
    drip_device_send(device, request->header.type, request->header.id,
                     sizeof(response) + sizeof(status));
    return REQUEST_DONE;
}

static int request_time(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_time_request_t asked;
    drip_time_response_t response;

    if (request->body_size < sizeof(asked)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    memcpy(&asked, request->body, sizeof(asked));
    memset(&response, 0, sizeof(response));
    response.time_us = drip_device_now(device);
    response.boot_id = drip_device_has_log(device) ? device->log.boot_id : 0;
    device->unix_offset_us = asked.unix_us - response.time_us;
    drip_device_note_clock(device);
    memcpy(drip_device_body(device), &response, sizeof(response));
    drip_device_send(device, request->header.type, request->header.id, sizeof(response));
    return REQUEST_DONE;
}

static int request_reset(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_device_stream_stop(device);
    drip_device_restart(device);
    return drip_device_answer(device, request, DRIP_ERR_OK, 0);
}

/* ------------------------------------------------------------------ all of them */

static int is_stream(const drip_link_frame_t *request)
{
    drip_read_request_t asked;

    if (request->header.type != DRIP_FRAME_READ || request->body_size < sizeof(asked)) {
        return 0;
    }
    memcpy(&asked, request->body, sizeof(asked));
    return asked.chunk != 0;
}

int drip_device_request(drip_device_t *device, const drip_link_frame_t *request)
{
    uint8_t type = request->header.type;

    if ((type & DRIP_RESPONSE) != 0 || type == DRIP_FRAME_EVENT) {
        return REQUEST_DONE; /* an echo, or another device on the line */
    }
    if (device->reset_wanted) {
        return REQUEST_HOLD;
    }
    if (is_stream(request)) {
        return drip_device_stream(device, request);
    }
    if (drip_device_body(device) == NULL) {
        return REQUEST_HOLD;
    }
    switch (type) {
    case DRIP_FRAME_HELLO:
        return request_hello(device, request);
    case DRIP_FRAME_STATUS:
        return request_status(device, request);
    case DRIP_FRAME_TIME:
        return request_time(device, request);
    case DRIP_FRAME_CONFIG_GET:
        return drip_device_config_get(device, request);
    case DRIP_FRAME_CONFIG_SET:
        if (!device->schema_ok) {
            return drip_device_answer(device, request, DRIP_ERR_SCHEMA, 0);
        }
        return drip_device_config_set(device, request);
    case DRIP_FRAME_SCORE:
    case DRIP_FRAME_FEED:
        return drip_device_feed(device, request);
    case DRIP_FRAME_READ:
        return drip_device_read(device, request);
    case DRIP_FRAME_ACK:
        return drip_device_ack(device, request);
    case DRIP_FRAME_MODEL:
        return drip_device_model(device, request);
    case DRIP_FRAME_BAUD:
        return drip_device_baud(device, request);
    case DRIP_FRAME_RESET:
        return request_reset(device, request);
    case DRIP_FRAME_SYNC:
        return drip_device_sync(device, request);
    default:
        return drip_device_answer(device, request, DRIP_ERR_UNSUPPORTED, 0);
    }
}

static void pending_feed(drip_device_t *device)
{
    if (device->pending_ready &&
        drip_device_answer_result(device, device->pending_type, device->pending_id)) {
        device->done_type = device->pending_type;
        device->done_id = device->pending_id;
        device->pending_type = 0;
    }
}

int drip_device_pending(drip_device_t *device)
{
    uint8_t type = device->pending_type;

    if (type == 0 || type == DRIP_FRAME_MODEL) {
        return 0;
    }
    if (type == DRIP_FRAME_FEED || type == DRIP_FRAME_SCORE) {
        pending_feed(device);
    } else if (type == DRIP_FRAME_CONFIG_SET) {
        drip_device_config_pending(device);
    } else {
        drip_device_log_pending(device);
    }
    return device->pending_type == 0 || device->pending_type == DRIP_FRAME_CONFIG_SET;
}

/* ------------------------------------------------------------------ events */

static void send_state(drip_device_t *device, uint8_t *body, uint16_t kind)
{
    drip_event_state_t event;

    memset(&event, 0, sizeof(event));
    event.kind = kind;
    event.size = sizeof(event);
    event.state = device->port->boot_reason;
    if (kind == DRIP_EVENT_CARD) {
        event.state = device->card_state;
        event.code = (int16_t)device->log.last_error;
    }
    memcpy(body, &event, sizeof(event));
    drip_link_send(&device->link, DRIP_FRAME_EVENT, 0, sizeof(event));
}

static void send_drift(drip_device_t *device, uint8_t *body)
{
    drip_event_drift_t event;

    event.kind = DRIP_EVENT_DRIFT;
    event.size = sizeof(event);
    event.psi_score = device->policy.psi_score;
    event.psi_class = device->policy.psi_class;
    event.frames = device->policy.count;
    memcpy(body, &event, sizeof(event));
    drip_link_send(&device->link, DRIP_FRAME_EVENT, 0, sizeof(event));
}

void drip_device_event(drip_device_t *device)
{
    uint8_t *body;
    uint32_t kind = DRIP_EVENT_KEPT;

    if (!device->events) {
        /* Whoever talks to the device must learn that it has forgotten what it was asked. */
        device->events_due &= 1u << DRIP_EVENT_BOOT;
    }
    body = device->events_due == 0 || device->holding ? NULL : drip_device_body(device);
    if (body == NULL) {
        return;
    }
    while ((device->events_due & 1u << kind) == 0) {
        kind++;
    }
    device->events_due = (uint8_t)(device->events_due & ~(1u << kind));
    if (kind == DRIP_EVENT_DRIFT) {
        send_drift(device, body);
        return;
    }
    if (kind != DRIP_EVENT_KEPT) {
        send_state(device, body, (uint16_t)kind);
        return;
    }
    device->kept.kind = DRIP_EVENT_KEPT;
    device->kept.size = sizeof(device->kept);
    memcpy(body, &device->kept, sizeof(device->kept));
    drip_link_send(&device->link, DRIP_FRAME_EVENT, 0, sizeof(device->kept));
}
