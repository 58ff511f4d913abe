/* BAUD: another rate of the line, kept only when the host is heard at it. */
#include "device_internal.h"

#include <string.h>

enum {
    BAUD_TRIAL_US = 1500000,  /* without CONFIRM the old rate comes back */
    BAUD_SILENCE_US = 3000000 /* of nothing but garbage: the rate after reset comes back */
};

enum { STEADY, DRAINING /* the answer still leaves at the old rate */, TRIAL };

void drip_device_baud_init(drip_device_t *device)
{
    device->baud.present = DRIP_LINK_BAUD_DEFAULT;
    device->baud.heard_us = drip_device_now(device);
}

int drip_device_baud(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_baud_t *baud = &device->baud;
    drip_baud_request_t asked;
    int code = DRIP_ERR_OK;

    if (device->port->link_baud == NULL) {
        return drip_device_answer(device, request, DRIP_ERR_UNSUPPORTED, 0);
    }
    if (request->body_size < sizeof(asked)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    memcpy(&asked, request->body, sizeof(asked));
    if (asked.op == DRIP_BAUD_CONFIRM) {
        baud->stage = baud->stage == TRIAL ? STEADY : baud->stage;
    } else if (asked.op != DRIP_BAUD_SET || asked.baud == 0) {
        code = DRIP_ERR_ARGUMENT;
    } else if (baud->stage != STEADY) {
        code = DRIP_ERR_STATE;
    } else if (asked.baud != baud->present) {
        baud->next = asked.baud;
        baud->stage = DRAINING;
        baud->since_us = drip_device_now(device);
    }
    return drip_device_answer(device, request, code, 0);
}

/* Returns 1 when the line runs at the new rate or stays at the old one, 0 while bytes still leave. */
static int change(drip_device_t *device, uint32_t rate)
{
    int code = device->port->link_baud(device->port->context, rate);

    if (code == DRIP_ERR_BUSY) {
        return 0;
    }
    if (code == DRIP_ERR_OK) {
        device->baud.present = rate;
    }
    return 1;
}

static void switch_rate(drip_device_t *device, uint64_t now)
{
    drip_baud_t *baud = &device->baud;
    uint32_t before = baud->present;

    if (drip_link_busy(&device->link) || !change(device, baud->next)) {
        return;
    }
    /* Every host finds the rate after reset again, so that one needs no trial. */
    baud->stage =
        baud->present == before || baud->present == DRIP_LINK_BAUD_DEFAULT ? STEADY : TRIAL;
    baud->before = before;
    baud->since_us = now;
}

void drip_device_baud_step(drip_device_t *device, int heard)
{
    drip_baud_t *baud = &device->baud;
    uint64_t now;

    if (device->port->link_baud == NULL) {
        return;
    }
    now = drip_device_now(device);
    if (heard) {
        baud->heard_us = now;
        device->link.rx_any = 0;
    }
    if (baud->stage == DRAINING) {
        switch_rate(device, now);
    } else if (baud->stage == TRIAL && now - baud->since_us > BAUD_TRIAL_US) {
        if (change(device, baud->before)) {
            baud->stage = STEADY;
        }
    } else if (baud->stage == STEADY && baud->present != DRIP_LINK_BAUD_DEFAULT &&
               device->link.rx_any && now - baud->heard_us > BAUD_SILENCE_US) {
        (void)change(device, DRIP_LINK_BAUD_DEFAULT);
    }
}
