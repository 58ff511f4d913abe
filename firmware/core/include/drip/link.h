/* Stage 7, link: frames on a byte stream. COBS between zero bytes, CRC-32 at the end.
 *
 * A frame is frame_header, body, CRC-32 over both, little-endian. Anything else on the line (boot
 * text, noise, another console) is skipped and counted. */
#ifndef DRIP_LINK_H
#define DRIP_LINK_H

#include "drip/port.h"

enum { DRIP_LINK_FRAME_BYTES = 4 + DRIP_MAX_BODY_BYTES + 4 };

/* One end of a link: 2.2 KiB. Members are private but `errors` and `rx_any`. */
typedef struct {
    const drip_port_t *port;
    uint32_t rx_size; /* decoded bytes so far */
    uint32_t tx_size; /* bytes in tx, before encoding */
    uint32_t tx_at;   /* next byte to encode */
    uint32_t errors;  /* frames lost to CRC, COBS or length */
    uint8_t rx_code;  /* COBS: bytes left in the present run */
    uint8_t rx_state; /* what the next byte is */
    uint8_t tx_state; /* what is sent next */
    uint8_t tx_run;   /* bytes left in the present run */
    uint8_t rx_raw_size;
    uint8_t rx_raw_at;
    uint8_t tx_join;    /* the delimiter before opens the next frame too */
    uint8_t rx_any;     /* bytes have arrived; the owner clears it */
    uint8_t rx_raw[16]; /* bytes taken from the port, not yet decoded */
    uint8_t rx[DRIP_LINK_FRAME_BYTES];
    uint8_t tx[DRIP_LINK_FRAME_BYTES];
} drip_link_t;

/* A received frame; points into the link until the next drip_link_poll. `body` has no alignment. */
typedef struct {
    drip_frame_header_t header;
    const uint8_t *body;
    uint32_t body_size;
} drip_link_frame_t;

/* Starts a link. */
void drip_link_init(drip_link_t *link, const drip_port_t *port);

/* Moves bytes between port and buffers; decodes at most one frame.
 *
 * Context: owner; never waits; bounded work (1 KiB of received bytes, what the port takes for
 * sending). Returns 1 when `frame` holds a frame whose CRC is right, else 0. */
int drip_link_poll(drip_link_t *link, drip_link_frame_t *frame);

/* Returns 1 when the last poll stopped before it had seen all received bytes. */
int drip_link_more(const drip_link_t *link);

/* Only sends: for an owner that still needs the frame it received last. */
void drip_link_pump(drip_link_t *link);

/* Where the body of the next frame to send can be built (DRIP_MAX_BODY_BYTES), or NULL while the
 * previous one is still being sent. */
uint8_t *drip_link_body(drip_link_t *link);

/* Sends the body built there. Returns DRIP_ERR_OK, _BUSY or _ARGUMENT. */
int drip_link_send(drip_link_t *link, uint8_t type, uint16_t id, uint32_t body_size);

/* Lets the next frame share the delimiter of the one before. What strays in between costs that frame. */
void drip_link_join(drip_link_t *link);

/* Returns 1 while bytes wait to be sent. */
int drip_link_busy(const drip_link_t *link);

#endif
