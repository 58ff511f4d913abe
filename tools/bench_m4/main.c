/* Runs a blob over its inputs; prints CRC-32 and instructions of every operator.
 *
 * Lines, all numbers hexadecimal: "open CODE", "op INPUT OPERATOR INSTRUCTIONS CRC",
 * "infer INPUT INSTRUCTIONS", "score INPUT INSTRUCTIONS RAW" (of Grad-CAM, score and decision),
 * "select INPUT INSTRUCTIONS" (the same with the redundancy rule on), "look INPUT CRC" (of the picture of
 * that rule), "stack BYTES", "end". */
#include "board.h"
#include "drip/bytes.h"
#include "drip/nn.h"
#ifndef BENCH_NO_SCORE
#include "drip/policy.h"
#endif

extern const uint8_t model_start[], model_end[], inputs_start[], inputs_end[];

static _Alignas(16) uint8_t arena[BENCH_ARENA];
static drip_nn_t nn;

static uint32_t tick_cost(void)
{
    uint32_t start = board_count();
    return board_count() - start;
}

/* A whole operator per call: the largest budget never crosses the end of one. */
static int run(uint32_t input)
{
    uint32_t cost = tick_cost(), total = 0;
    int more = drip_nn_begin(&nn) == DRIP_ERR_OK;
    while (more > 0) {
        uint16_t op = nn.op;
        uint32_t start = board_count();
        do {
            more = drip_nn_step(&nn, UINT32_MAX);
        } while (more > 0 && nn.op == op);
        uint32_t spent = board_count() - start - cost;
        const drip_blob_tensor_t *desc;
        const int8_t *data = drip_nn_tensor(&nn, nn.ops[op].out, &desc);
        total += spent;
        board_text("op ");
        board_hex(input);
        board_hex(op);
        board_hex(spent);
        board_hex(drip_crc32(0, data, desc->size));
        board_text("\n");
    }
    board_text("infer ");
    board_hex(input);
    board_hex(total);
    board_text("\n");
    return more;
}

#ifndef BENCH_NO_SCORE
static _Alignas(8) uint8_t scratch[BENCH_SCRATCH];

static drip_policy_t policy, watchful;

/* What score and policy call instead of memset: the count of cycles takes that for the engine's. */
void *aside_memset(void *memory, int value, uint32_t size)
{
    for (volatile uint8_t *byte = memory; size > 0; size--) {
        *byte++ = (uint8_t)value;
    }
    return memory;
}

/* A tracked threshold that every frame passes, floors and a burst credit: nothing is decided sooner. */
static void policy_start(drip_policy_t *it, uint32_t redundancy)
{
    drip_policy_config_t config;
    drip_policy_defaults(&config);
    config.kind = DRIP_POLICY_TARGET;
    config.target = DRIP_TARGET_ALL;
    config.random_share = 0;
    config.burst = 64;
    config.floor_share = 3277;
    config.redundancy = redundancy;
    drip_policy_init(it, &config);
}

static uint32_t look(void)
{
    uint32_t start = board_count();
    drip_policy_look(&watchful, &nn);
    uint32_t spent = board_count() - start;
    /* Pictures that differ in their last byte only: all of the ring is looked at, to its end. */
    for (uint32_t i = 0; i < DRIP_THUMB_RING; i++) {
        watchful.ring[i] = watchful.thumb;
        watchful.ring[i].cell[DRIP_THUMB_BYTES - 1] ^= 0xFF;
    }
    return spent;
}

static uint32_t decide(drip_policy_t *it, const drip_score_t *stage,
                       const drip_score_result_t *result)
{
    uint32_t start = board_count();
    drip_policy_decide(it, stage, result);
    return board_count() - start;
}

static void score(uint32_t input, uint32_t looked)
{
    drip_score_t stage;
    drip_score_result_t result;
    uint8_t kind = nn.header.cam_head != 0 ? DRIP_SCORE_CAM_EVIDENCE : DRIP_SCORE_MARGIN;
    if (drip_score_open(&stage, &nn, kind, 1) != DRIP_ERR_OK ||
        drip_score_scratch_bytes(&stage) > sizeof scratch) {
        return;
    }
    drip_policy_attach(&policy, &stage);
    drip_policy_attach(&watchful, &stage);
    watchful.thumb_count = DRIP_THUMB_RING;
    uint32_t start = board_count();
    int code = drip_score_compute(&stage, scratch, &result);
    uint32_t spent = board_count() - start;
    if (code == DRIP_ERR_OK) {
        board_text("score ");
        board_hex(input);
        board_hex(spent + decide(&policy, &stage, &result));
        board_hex((uint32_t)result.raw);
        board_text("\nselect ");
        board_hex(input);
        board_hex(spent + looked + decide(&watchful, &stage, &result));
        board_text("\n");
    }
}
#endif

/* Words of the present frame that may lie below its address. */
#ifdef __riscv
enum { FRAME_WORDS = 128 };
#else
enum { FRAME_WORDS = 16 };
#endif

/* Fills the free stack, so that what an inference used can be told afterwards. */
static uint32_t *stack_paint(void)
{
    extern uint32_t bss_end[];
    uint32_t *here = __builtin_frame_address(0);
    /* Volatile: not a call of memset, which the count of cycles takes for the engine's. */
    for (volatile uint32_t *word = bss_end; word < here - FRAME_WORDS; word++) {
        *word = 0xA5A5A5A5U;
    }
    return here;
}

static uint32_t stack_used(const uint32_t *top)
{
    extern uint32_t bss_end[];
    const uint32_t *word = bss_end;
    while (*word == 0xA5A5A5A5U) {
        word++;
    }
    return (uint32_t)(top - word) * 4U;
}

int main(void)
{
    int code = drip_nn_open(&nn, model_start, (uint32_t)(model_end - model_start));
    if (code == DRIP_ERR_OK) {
        code = drip_nn_bind(&nn, arena, sizeof arena);
    }
    board_text("open ");
    board_hex((uint32_t)code);
    board_text("\n");
    if (code != DRIP_ERR_OK) {
        return 1;
    }
    uint32_t size = nn.input.elements, index = 0;
    for (const uint8_t *from = inputs_start; from < inputs_end; from += size, index++) {
        int8_t *input = drip_nn_input(&nn);
        for (uint32_t i = 0; i < size; i++) {
            input[i] = (int8_t)from[i];
        }
#ifndef BENCH_NO_SCORE
        policy_start(&policy, 0);
        policy_start(&watchful, 16);
        uint32_t looked = look();
        board_text("look ");
        board_hex(index);
        board_hex(drip_crc32(0, watchful.thumb.cell, DRIP_THUMB_BYTES));
        board_text("\n");
#endif
        uint32_t *top = stack_paint();
        if (run(index) != 0) {
            return 1;
        }
        board_text("stack ");
        board_hex(stack_used(top));
        board_text("\n");
#ifndef BENCH_NO_SCORE
        score(index, looked);
#endif
    }
    board_text("end\n");
    return 0;
}
