/* What a board must implement. Copy firmware/ports/template to start.
 *
 * Every function gets `context` and returns at once: >= 0 is a result, < 0 a DRIP_ERR_*. Long work is
 * started and polled. Functions that a board lacks stay NULL where the comment allows it. */
#ifndef DRIP_PORT_H
#define DRIP_PORT_H

#include "drip/frame.h"

typedef struct {
    void *context;

    /* Monotonic microseconds since boot. */
    uint64_t (*time_us)(void *context);

    /* Moves up to `size` received bytes to `data`. Returns how many (0 = none). */
    int (*link_read)(void *context, uint8_t *data, uint32_t size);
    /* Takes up to `size` bytes for sending. Returns how many were taken (0 = try again). */
    int (*link_write)(void *context, const uint8_t *data, uint32_t size);

    /* Changes the bit rate of both directions once all bytes taken for sending have left. Returns
     * DRIP_ERR_OK, _BUSY (ask again), or an error: the rate stays as it is. NULL where it is fixed. */
    int (*link_baud)(void *context, uint32_t baud);
    /* Highest rate that link_baud takes and the board keeps up with; hosts raise the line to it by
     * themselves. 0 = they leave it as it is. */
    uint32_t baud_most;

    /* Blocks of the card, or DRIP_ERR_NO_CARD / _BUSY while it starts. */
    int (*card_blocks)(void *context, uint32_t *blocks);
    /* Start a transfer of `count` blocks of DRIP_BLOCK_BYTES; `data` stays valid until polled done. One at a time. */
    int (*card_read)(void *context, uint32_t block, uint8_t *data, uint32_t count);
    int (*card_write)(void *context, uint32_t block, const uint8_t *data, uint32_t count);
    /* Returns DRIP_ERR_OK when the transfer is done and safe on the medium, _BUSY, or its error:
     * _PROTECTED for a write to a card that is write-protected. */
    int (*card_poll)(void *context);

    /* Memory-mapped flash for models: areas 0 and 1 hold a model each, areas 2 and 3 the journal that
     * says which one boots. flash_map is NULL, or returns NULL, when the board has none. Areas
     * start at a multiple of DRIP_BLOB_ALIGN and are erased one at a time, each on its own. */
    const uint8_t *(*flash_map)(void *context, int area);
    uint32_t slot_bytes;    /* of areas 0 and 1, a multiple of 16 */
    uint32_t journal_bytes; /* of areas 2 and 3, at least 4 * DRIP_SLOT_ENTRY_BYTES */
    /* Start to erase an area (all bytes become 0xFF), or to program `size` bytes at `offset` (both
     * multiples of 16; the bytes there are 0xFF; `data` has no alignment and stays valid until polled
     * done). One at a time. */
    int (*flash_erase)(void *context, int area);
    int (*flash_write)(void *context, int area, uint32_t offset, const uint8_t *data,
                       uint32_t size);
    /* Returns DRIP_ERR_OK when the operation is done and readable, _BUSY, or its error. */
    int (*flash_poll)(void *context);

    /* The board's own sensor; NULL when frames come by FEED only. Returns 1 and a frame, or 0. The
     * frame's bytes must be in the capture buffer that is passed. */
    int (*sensor_poll)(void *context, uint8_t *buffer, uint32_t buffer_bytes, drip_frame_t *frame);
    /* Describes stream n of this board. Returns 1, or 0 past the last. May be NULL. */
    int (*sensor_stream)(void *context, uint32_t index, drip_stream_t *stream);

    /* Restarts the device; may return when a simulator restarts it from outside. */
    void (*reset)(void *context);
    /* Kicks the watchdog; called at least every 100 ms. May be NULL. */
    void (*watchdog)(void *context);

    /* Fills in the fields of a status that only the board knows: stack_free, fault*. May be NULL. */
    void (*board_status)(void *context, drip_status_t *status);
    /* 1: the processor stands still while flash is erased, for as long as seconds. The host is told BUSY
     * before, and flash_poll begins to erase only when all bytes taken for sending have left. */
    uint8_t flash_stalls;

    /* Why it started, enum DRIP_BOOT_*; goes into the BOOT event. */
    uint8_t boot_reason;

    uint8_t device_id[16];
    char name[16]; /* of the port, zero-padded */
} drip_port_t;

#endif
