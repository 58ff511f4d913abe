/* The whole firmware: start the board, lend the device its memory, step for ever. */
#include <stddef.h>

#include "drip/device.h"
#include "port.h"

/* FIXME: as large as the largest model needs; `drip inspect MODEL` says how much. */
enum { ARENA_BYTES = 48 * 1024, CAPTURE_BYTES = 8 * 1024, SCRATCH_BYTES = 4 * 1024 };

/* FIXME: DRIP_QUEUE_FRAMES where there is the RAM; docs/PORTING.md says how many a busy card asks for. */
enum { CAPTURE_FRAMES = 1 };

static _Alignas(16) uint8_t arena[ARENA_BYTES];
static _Alignas(8) uint8_t capture[CAPTURE_FRAMES * CAPTURE_BYTES];
static drip_frame_t captured[CAPTURE_FRAMES];
static _Alignas(4) uint8_t scratch[SCRATCH_BYTES];
static drip_device_t device;
static drip_port_t port;

int main(void)
{
    drip_device_memory_t memory = {
        .arena = arena,
        .arena_bytes = sizeof(arena),
        .capture = capture,
        .capture_bytes = CAPTURE_BYTES,
        .capture_frames = CAPTURE_FRAMES,
        .captured = captured,
        .scratch = scratch,
        .scratch_bytes = sizeof(scratch),
        /* FIXME: a model in the image, or NULL when the slots bring one. Aligned to 16. */
        .fixed_model = NULL,
        .fixed_model_bytes = 0,
    };

    board_start(&port);
    if (drip_device_init(&device, &port, &memory) < 0) {
        return 1;
    }
    for (;;) {
        if (!drip_device_step(&device)) {
            board_sleep();
        }
    }
}
