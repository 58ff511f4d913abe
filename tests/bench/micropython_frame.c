/* The C firmware's share of tests/bench/micropython_cost.py: what drip.Scorer does, without MicroPython.
 *
 * Lines, all numbers hexadecimal: "frame INSTRUCTIONS RAW" of every frame, "first INSTRUCTIONS" from reset to the
 * first score, "end". */
#include "board.h"
#include "drip/policy.h"

extern const uint8_t model_start[], model_end[], inputs_start[], inputs_end[];

static _Alignas(16) uint8_t arena[BENCH_ARENA];
static _Alignas(8) uint8_t scratch[BENCH_SCRATCH];
static drip_nn_t nn;
static drip_score_t stage;
static drip_policy_t policy;

static int open_all(void)
{
    drip_policy_config_t config;
    int code = drip_nn_open(&nn, model_start, (uint32_t)(model_end - model_start));
    if (code == DRIP_ERR_OK) {
        code = drip_nn_bind(&nn, arena, sizeof arena);
    }
    if (code == DRIP_ERR_OK) {
        uint8_t kind = nn.header.cam_head != 0 ? DRIP_SCORE_CAM_EVIDENCE : DRIP_SCORE_MARGIN;
        code = drip_score_open(&stage, &nn, kind, 1);
    }
    if (code == DRIP_ERR_OK && drip_score_scratch_bytes(&stage) > sizeof scratch) {
        code = DRIP_ERR_MEMORY;
    }
    drip_policy_defaults(&config);
    if (code == DRIP_ERR_OK) {
        code = drip_policy_init(&policy, &config);
        drip_policy_attach(&policy, &stage);
    }
    return code;
}

static int score(const uint8_t *data, uint32_t size, drip_score_result_t *result)
{
    drip_frame_t frame = {0};
    int code = 0;
    frame.data = data;
    frame.size = size;
    while (code >= 0 && code < (int)nn.input.elements) {
        code = drip_nn_load(&nn, &frame, (uint32_t)code);
    }
    drip_policy_look(&policy, &nn);
    if (code >= 0) {
        code = drip_nn_begin(&nn);
    }
    while (code >= 0 && drip_nn_step(&nn, UINT32_MAX) > 0) {
    }
    if (code >= 0) {
        code = drip_score_compute(&stage, scratch, result);
    }
    return code < 0 ? code : drip_policy_decide(&policy, &stage, result);
}

int main(void)
{
    drip_score_result_t result;
    if (open_all() < 0) {
        return 1;
    }
    const uint32_t size = nn.input.desc.frame_bytes;
    for (const uint8_t *from = inputs_start; from + size <= inputs_end; from += size) {
        uint32_t start = board_count();
        int code = score(from, size, &result);
        uint32_t end = board_count();
        if (code < 0) {
            return 1;
        }
        if (from == inputs_start) {
            board_text("first ");
            board_hex(end);
            board_text("\n");
        }
        board_text("frame ");
        board_hex(end - start);
        board_hex((uint32_t)result.raw);
        board_text("\n");
    }
    board_text("end\n");
    return 0;
}
