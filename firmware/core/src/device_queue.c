/* The capture queue: frames lie in the memory that the board lends, a ring of places. */
#include "device_internal.h"

#include <string.h>

/* Number of the place that the next frame gets, while there is one. */
static uint32_t next_place(const drip_device_t *device)
{
    uint32_t place = (uint32_t)device->queue.first + device->queue.count;

    return place < device->memory.capture_frames ? place : place - device->memory.capture_frames;
}

uint8_t *drip_device_place(const drip_device_t *device)
{
    uint32_t stride = (device->memory.capture_bytes + 7) & ~7u;

    return device->queue.count < device->memory.capture_frames
               ? device->memory.capture + next_place(device) * stride
               : NULL;
}

void drip_device_enqueue(drip_device_t *device)
{
    drip_queue_t *queue = &device->queue;

    queue->count++;
    if (queue->count > device->status.queue_high_water) {
        device->status.queue_high_water = queue->count;
    }
}

/* A frame that arrives by FEED lies where the next one would go. Without memory to note what waits, a
 * frame can only come when it can be taken into work at once. */
static int can_capture(const drip_device_t *device)
{
    return device->port->sensor_poll != NULL && device->feed_bytes == 0 && !device->reset_wanted &&
           (device->memory.captured != NULL ||
            (device->stage == STAGE_IDLE && !drip_device_reserved(device)));
}

int drip_device_capture(drip_device_t *device)
{
    const drip_port_t *port = device->port;
    uint8_t *place = can_capture(device) ? drip_device_place(device) : NULL;
    drip_frame_t frame;

    if (place == NULL) {
        return 0;
    }
    memset(&frame, 0, sizeof(frame));
    if (port->sensor_poll(port->context, place, device->memory.capture_bytes, &frame) <= 0 ||
        frame.size == 0 || frame.size > device->memory.capture_bytes) {
        return 0;
    }
    frame.data = place;
    device->done_type = 0; /* it may lie where an answered frame lay */
    if (device->memory.captured != NULL) {
        device->memory.captured[next_place(device)] = frame;
        drip_device_enqueue(device);
    } else {
        drip_device_enqueue(device);
        device->queue.taken = 1;
        drip_device_begin(device, &frame, 0);
    }
    return 1;
}

int drip_device_next(drip_device_t *device)
{
    drip_queue_t *queue = &device->queue;

    if (queue->count == 0 || drip_device_reserved(device)) {
        return 0;
    }
    queue->taken = 1;
    drip_device_begin(device, &device->memory.captured[queue->first], 0);
    return 1;
}

void drip_device_release(drip_device_t *device)
{
    drip_queue_t *queue = &device->queue;

    if (!queue->taken) {
        return;
    }
    queue->taken = 0;
    queue->count--;
    queue->first++;
    if (queue->first == device->memory.capture_frames) {
        queue->first = 0;
    }
}
