/* FEED and SCORE: a frame that comes over the link in chunks. */
#include "device_internal.h"

#include <string.h>

int drip_device_answer_result(drip_device_t *device, uint8_t type, uint16_t id)
{
    drip_response_t response;
    uint8_t *body = drip_device_body(device);

    if (body == NULL) {
        return REQUEST_HOLD;
    }
    response.code = DRIP_ERR_OK;
    response.detail = (uint16_t)-device->outcome;
    memcpy(body, &response, sizeof(response));
    memcpy(body + sizeof(response), &device->result, sizeof(device->result));
    drip_device_send(device, type, id, sizeof(response) + sizeof(device->result));
    return REQUEST_DONE;
}

/* The answer to a last chunk was lost on the line, and the chunk comes again. */
static int is_repeated(const drip_device_t *device, const drip_link_frame_t *request,
                       const drip_feed_t *feed, const uint8_t *chunk, uint32_t size)
{
    return device->done_type == request->header.type && device->done_id == request->header.id &&
           device->feed_bytes == 0 && feed->token == device->feed.token &&
           feed->frame_bytes == device->feed.frame_bytes &&
           feed->offset + size == feed->frame_bytes &&
           memcmp(device->feed_data + feed->offset, chunk, size) == 0;
}

/* What is wrong with a chunk on its own, or DRIP_ERR_OK. */
static int check(const drip_device_t *device, const drip_link_frame_t *request,
                 const drip_feed_t *feed, uint32_t size)
{
    if (!device->schema_ok) {
        return DRIP_ERR_SCHEMA;
    }
    if (feed->frame_bytes > device->memory.capture_bytes) {
        return DRIP_ERR_MEMORY;
    }
    if (size == 0 || feed->offset > feed->frame_bytes || size > feed->frame_bytes - feed->offset) {
        return DRIP_ERR_ARGUMENT;
    }
    if (!device->has_model) {
        return request->header.type == DRIP_FRAME_SCORE ? DRIP_ERR_NO_MODEL : DRIP_ERR_OK;
    }
    return feed->frame_bytes == device->nn.input.desc.frame_bytes ? DRIP_ERR_OK : DRIP_ERR_ARGUMENT;
}

static int belongs(const drip_device_t *device, const drip_feed_t *feed)
{
    return device->feed_bytes != 0 && feed->frame_bytes == device->feed.frame_bytes &&
           feed->token == device->feed.token && feed->stream_id == device->feed.stream_id;
}

static void begin(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_frame_t frame;

    memset(&frame, 0, sizeof(frame));
    frame.data = device->feed_data;
    frame.size = device->feed.frame_bytes;
    frame.time_us = drip_device_now(device);
    frame.stream_id = device->feed.stream_id;
    frame.token = device->feed.token;
    device->feed_bytes = 0;
    device->pending_type = request->header.type;
    device->pending_id = request->header.id;
    device->pending_ready = 0;
    drip_device_enqueue(device);
    device->queue.taken = 1;
    drip_device_begin(device, &frame, request->header.type == DRIP_FRAME_SCORE);
}

int drip_device_feed(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_feed_t feed;
    const uint8_t *chunk = request->body + sizeof(feed);
    uint32_t size = request->body_size - (uint32_t)sizeof(feed);
    int code;

    if (request->body_size < sizeof(feed)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    memcpy(&feed, request->body, sizeof(feed));
    code = check(device, request, &feed, size);
    if (code < 0) {
        return drip_device_answer(device, request, code, 0);
    }
    if (device->pending_type != 0) {
        return REQUEST_HOLD;
    }
    if (is_repeated(device, request, &feed, chunk, size)) {
        return drip_device_answer_result(device, request->header.type, request->header.id);
    }
    if (!drip_device_idle(device, NULL)) {
        return drip_device_answer(device, request, DRIP_ERR_BUSY, 0);
    }
    if (feed.offset == 0) {
        device->feed = feed;
        device->feed_bytes = 0;
        device->feed_data = drip_device_place(device);
    } else if (!belongs(device, &feed) || feed.offset > device->feed_bytes) {
        return drip_device_answer(device, request, DRIP_ERR_RANGE,
                                  belongs(device, &feed) ? device->feed_bytes : 0);
    }
    if (feed.offset + size > device->feed_bytes) {
        memcpy(device->feed_data + feed.offset, chunk, size);
        device->feed_bytes = feed.offset + size;
    }
    device->done_type = 0;
    device->feed_us = drip_device_now(device);
    if (device->feed_bytes < feed.frame_bytes) {
        return drip_device_answer(device, request, DRIP_ERR_OK, device->feed_bytes);
    }
    begin(device, request);
    return REQUEST_DONE;
}
