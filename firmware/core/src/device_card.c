/* The card: finding the log on it, and what to do while there is none. */
#include "device_internal.h"

#include <string.h>

/* Segment headers describe what the sensors deliver; a board that only gets frames over the link
 * describes what its model takes. */
static void name_streams(drip_device_t *device)
{
    const drip_port_t *port = device->port;
    drip_stream_t streams[DRIP_MAX_STREAMS];
    uint32_t count = 0;

    memset(streams, 0, sizeof(streams));
    while (port->sensor_stream != NULL && count < DRIP_MAX_STREAMS &&
           port->sensor_stream(port->context, count, &streams[count]) > 0) {
        count++;
    }
    if (count == 0 && device->has_model) {
        const drip_blob_input_t *input = &device->nn.input.desc;

        streams[0].dtype = input->dtype;
        streams[0].rank = input->rank;
        memcpy(streams[0].shape, input->shape, sizeof(streams[0].shape));
        streams[0].scale = input->scale;
        streams[0].offset = input->offset;
        count = 1;
    }
    drip_log_streams(&device->log, streams, count);
}

void drip_device_mount(drip_device_t *device)
{
    drip_log_mount(&device->log, device->port, &device->log_config, 0, 0);
    name_streams(device);
    /* Until the log is mounted, its block is free. */
    drip_volume_start(&device->volume, device->port, device->log.block.bytes);
    device->finding = 1;
    device->mount_us = drip_device_now(device);
}

static uint8_t state_of(int error)
{
    if (error == DRIP_ERR_NO_CARD) {
        return DRIP_CARD_ABSENT;
    }
    if (error == DRIP_ERR_MAGIC) {
        return DRIP_CARD_FOREIGN;
    }
    return error == DRIP_ERR_CORRUPT ? DRIP_CARD_FRAGMENTED : DRIP_CARD_ERROR;
}

int drip_device_card_step(drip_device_t *device)
{
    const drip_volume_t *found = &device->volume;
    int result;

    if (!device->finding) {
        return drip_log_step(&device->log);
    }
    result = drip_volume_step(&device->volume);
    if (result == DRIP_ERR_BUSY) {
        return 1;
    }
    device->finding = 0;
    if (result < 0) {
        drip_log_refuse(&device->log, state_of(result), result);
        return 0;
    }
    drip_log_mount(&device->log, device->port, &device->log_config, found->first_block,
                   found->blocks);
    drip_log_place(&device->log, &found->place);
    return 1;
}

uint8_t drip_device_card_state(const drip_device_t *device)
{
    /* Another look at a card that was absent or of no use is no news until log files are found. */
    return device->log.card == DRIP_CARD_MOUNTING && device->volume.place.blocks == 0
               ? device->card_state
               : device->log.card;
}

void drip_device_watch_card(drip_device_t *device)
{
    uint8_t card = device->log.card;

    if (card != device->card_state && card != DRIP_CARD_MOUNTING) {
        device->card_state = card;
        device->events_due = (uint8_t)(device->events_due | 1u << DRIP_EVENT_CARD);
    }
    if (card != DRIP_CARD_MOUNTING && !drip_device_has_log(device) && device->pending_type == 0 &&
        !device->reader.reading && !drip_log_busy(&device->log) &&
        drip_device_now(device) - device->mount_us >= DEVICE_MOUNT_RETRY_US) {
        drip_device_mount(device);
    }
}
