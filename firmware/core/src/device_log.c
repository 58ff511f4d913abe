/* READ, ACK and SYNC: the log as the host sees it. */
#include "device_internal.h"

#include <string.h>

int drip_device_has_log(const drip_device_t *device)
{
    return device->log.card == DRIP_CARD_READY || device->log.card == DRIP_CARD_FULL;
}

enum { CLOCK_CHANGE_US = 100000 /* less is not worth a record */ };

void drip_device_note_clock(drip_device_t *device)
{
    uint64_t known = device->clock.unix_us - device->clock.time_us;

    if (device->clock_boot != device->log.boot_id ||
        device->unix_offset_us - known + CLOCK_CHANGE_US > 2 * CLOCK_CHANGE_US) {
        device->clock_due = 1;
    }
}

/* Between two frames: the log takes one record at a time. */
void drip_device_clock_step(drip_device_t *device)
{
    drip_record_header_t header;

    if (drip_device_has_log(device) && device->unix_offset_us != 0 &&
        device->clock_boot != device->log.boot_id) {
        device->clock_due = 1; /* a card that was put back counts as another boot */
    }
    if (!device->clock_due || !drip_device_has_log(device) || drip_log_busy(&device->log)) {
        return;
    }
    memset(&header, 0, sizeof(header));
    header.payload_bytes = sizeof(device->clock);
    header.flags = DRIP_RECORD_KIND_CLOCK << DRIP_RECORD_KIND_SHIFT;
    header.time_us = drip_device_now(device);
    device->clock.time_us = header.time_us;
    device->clock.unix_us = header.time_us + device->unix_offset_us;
    if (drip_log_append(&device->log, &header, (const uint8_t *)&device->clock) != DRIP_ERR_BUSY) {
        (void)drip_log_sync(&device->log);
        device->clock_due = 0; /* in a full log the next host notes it */
        device->clock_boot = device->log.boot_id;
    }
}

static void answer_read(drip_device_t *device, uint8_t type, uint16_t id, int got)
{
    drip_read_response_t response;
    uint8_t *body = drip_link_body(&device->link);

    memset(&response, 0, sizeof(response));
    response.code = (int16_t)(got < 0 ? got : DRIP_ERR_OK);
    response.size = got < 0 ? 0 : (uint32_t)got;
    response.position = device->position;
    if (got == DRIP_ERR_GONE) {
        response.position = drip_log_tail(&device->log);
    }
    if (got == DRIP_ERR_RANGE ||
        (got >= 0 && device->position + response.size >= drip_log_durable(&device->log))) {
        response.flags = DRIP_READ_END;
    }
    memcpy(body, &response, sizeof(response));
    drip_device_send(device, type, id, (uint32_t)sizeof(response) + response.size);
}

int drip_device_read(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_read_request_t asked;
    uint8_t *body = drip_device_body(device);
    int code;

    if (request->body_size < sizeof(asked)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    if (device->pending_type != 0) {
        return REQUEST_HOLD;
    }
    memcpy(&asked, request->body, sizeof(asked));
    if (asked.size > DRIP_MAX_CHUNK_BYTES) {
        asked.size = DRIP_MAX_CHUNK_BYTES;
    }
    code = drip_log_read(&device->log, asked.position, body + DRIP_READ_RESPONSE_BYTES, asked.size);
    if (code == DRIP_ERR_BUSY) {
        return REQUEST_HOLD;
    }
    device->position = asked.position;
    if (code < 0) {
        answer_read(device, request->header.type, request->header.id, code);
    } else {
        drip_device_defer(device, request);
    }
    return REQUEST_DONE;
}

static void answer_ack(drip_device_t *device, uint8_t type, uint16_t id, int code)
{
    drip_ack_response_t response;

    memset(&response, 0, sizeof(response));
    response.code = (int16_t)code;
    response.acked_segment = device->log.super.acked_segment;
    memcpy(drip_link_body(&device->link), &response, sizeof(response));
    drip_device_send(device, type, id, sizeof(response));
}

int drip_device_ack(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_ack_t asked;
    int code;

    if (request->body_size < sizeof(asked)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    if (device->pending_type != 0) {
        return REQUEST_HOLD;
    }
    memcpy(&asked, request->body, sizeof(asked));
    code = drip_log_ack(&device->log, asked.segment, asked.records, asked.digest);
    if (code == DRIP_ERR_BUSY) {
        return REQUEST_HOLD;
    }
    if (code < 0) {
        answer_ack(device, request->header.type, request->header.id, code);
    } else {
        drip_device_defer(device, request);
    }
    return REQUEST_DONE;
}

int drip_device_sync(drip_device_t *device, const drip_link_frame_t *request)
{
    int code;

    if (device->pending_type != 0) {
        return REQUEST_HOLD;
    }
    if (drip_device_has_log(device) && drip_log_busy(&device->log)) {
        return REQUEST_HOLD; /* the end is known when the record that is being written has its place */
    }
    code = drip_log_sync(&device->log);
    if (code < 0) {
        return drip_device_answer(device, request, code, 0);
    }
    device->position = drip_log_end(&device->log);
    device->sync_boot = device->log.boot_id;
    drip_device_defer(device, request);
    return REQUEST_DONE;
}

static void pending_sync(drip_device_t *device)
{
    drip_link_frame_t request;
    int code = DRIP_ERR_OK;

    if (!drip_device_has_log(device)) {
        code = device->log.last_error < 0 ? device->log.last_error : DRIP_ERR_NO_CARD;
    } else if (device->log.boot_id != device->sync_boot) {
        code = DRIP_ERR_NO_CARD; /* pulled and put back: what was not durable is lost */
    } else if (drip_log_pending(&device->log) != 0 &&
               drip_log_durable(&device->log) < device->position) {
        return;
    }
    request.header.type = device->pending_type;
    request.header.id = device->pending_id;
    if (drip_device_answer(device, &request, code, 0)) {
        device->pending_type = 0;
    }
}

void drip_device_log_pending(drip_device_t *device)
{
    uint8_t type = device->pending_type;
    uint16_t id = device->pending_id;
    int code;

    if (type == DRIP_FRAME_SYNC) {
        pending_sync(device);
    } else if (type == DRIP_FRAME_READ) {
        code = drip_log_read_poll(&device->log);
        if (code != DRIP_ERR_BUSY) {
            device->pending_type = 0;
            answer_read(device, type, id, code);
        }
    } else if (drip_device_body(device) != NULL) {
        code = drip_log_ack_poll(&device->log);
        if (code != DRIP_ERR_BUSY) {
            device->pending_type = 0;
            answer_ack(device, type, id, code);
        }
    }
}
