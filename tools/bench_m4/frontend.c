/* Runs the front-end over windows of sound; prints what each cost and the CRC-32 of its features.
 *
 * The "model" is a section FRONTEND, the inputs are windows of samples, one after another. Lines, all
 * numbers hexadecimal: "open CODE", "window N INSTRUCTIONS CRC", "end". */
#include "board.h"
#include "drip/bytes.h"
#include "drip/frontend.h"

extern const uint8_t model_start[], model_end[], inputs_start[], inputs_end[];

static drip_frontend_t frontend;
static int32_t work[DRIP_FRONTEND_FFT_MAX];
static uint8_t features[DRIP_FRONTEND_MELS_MAX];

int main(void)
{
    int code = drip_frontend_open(&frontend, model_start, (uint32_t)(model_end - model_start));
    board_text("open ");
    board_hex((uint32_t)code);
    board_text("\n");
    if (code != 0) {
        return 1;
    }
    uint32_t before = board_count(), cost = board_count() - before, index = 0;
    const uint32_t size = 2u * frontend.desc.window;
    for (const uint8_t *from = inputs_start; from + size <= inputs_end; from += size, index++) {
        const uint32_t start = board_count();
        drip_frontend_window(&frontend, from, work, features);
        const uint32_t spent = board_count() - start - cost;
        board_text("window ");
        board_hex(index);
        board_hex(spent);
        board_hex(drip_crc32(0, features, frontend.desc.mels));
        board_text("\n");
    }
    board_text("end\n");
    return 0;
}
