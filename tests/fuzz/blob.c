/* A model blob from anywhere: it is refused, or runs inside the blob and its arena.
 *
 * The input is a blob. It is tried as it is, with the checksum and sizes put right, and then in the
 * smallest arena that it could have asked for: what runs over shows there. */
#include "drip/score.h"

#include "blob.h"

enum {
    ARENA_LIMIT = 1 << 20,
    BUDGET = 64,          /* of one step: operators take several */
    WORK_LIMIT = 1 << 22, /* multiply-accumulates of one input */
    EXP_COST = 120,       /* of an element of SOFTMAX */
    SELFTEST_LIMIT = 1 << 19,
    INPUT_LIMIT = 1 << 20,
};

/* The most that one step can do: a step may go over its budget by one unit of one operator. */
static uint32_t step_work(const drip_nn_t *nn)
{
    const drip_blob_op_t *op = &nn->ops[nn->op];
    const uint32_t in = nn->tensors[op->in0].size;
    uint32_t work = BUDGET;

    work = op->weights_bytes > work ? op->weights_bytes : work;
    work = 4 * in > work ? 4 * in : work;
    return op->kind == DRIP_OP_SOFTMAX ? work + EXP_COST * in : work;
}

static void touch(const drip_nn_t *nn, uint32_t tensor)
{
    const drip_blob_tensor_t *desc = NULL;
    const int8_t *values = drip_nn_tensor(nn, (uint16_t)tensor, &desc);

    if (tensor < nn->tensor_count) {
        MUST(values != NULL && desc != NULL);
        (void)drip_crc32(0, values, desc->size);
    } else {
        MUST(values == NULL);
    }
}

/* Runs the network to its end, or until it has worked enough. Returns what it worked, or 0. */
static uint32_t run(drip_nn_t *nn)
{
    uint32_t work = 0;
    int more = 1;

    MUST(drip_nn_begin(nn) == DRIP_ERR_OK);
    while (more) {
        const uint32_t op = nn->op;
        const uint32_t out = nn->ops[op].out;

        work += step_work(nn);
        if (work > WORK_LIMIT) {
            return 0;
        }
        more = drip_nn_step(nn, BUDGET);
        MUST(more == 0 || more == 1);
        if (nn->op != op) {
            touch(nn, out);
        }
    }
    MUST(nn->op == nn->op_count && drip_nn_step(nn, BUDGET) == 0);
    return work;
}

static void quantise(drip_nn_t *nn)
{
    const drip_blob_input_t *desc = &nn->input.desc;
    drip_frame_t frame = {0};
    drip_rng_t rng;
    uint8_t *raw = fuzz_block(desc->frame_bytes, 0);
    int done = 0;

    drip_rng_seed(&rng, 1);
    drip_rng_fill(&rng, raw, desc->frame_bytes);
    frame.data = raw;
    frame.size = desc->frame_bytes;
    while ((uint32_t)done < nn->input.elements) {
        const int more = drip_nn_load(nn, &frame, (uint32_t)done);
        MUST(more > done && (uint32_t)more <= nn->input.elements);
        done = more;
    }
    free(raw);
}

static void look_at_cam(const drip_nn_t *nn)
{
    drip_cam_t cam;
    uint8_t *scratch;
    int32_t *map;
    int32_t sum = -1;
    int other;

    if (drip_cam_open(&cam, nn) != DRIP_ERR_OK) {
        return;
    }
    scratch = fuzz_block(drip_cam_scratch_bytes(&cam), 0xA5);
    map = (int32_t *)(void *)fuzz_block(4u * cam.head->pixels, 0xA5);
    for (other = -1; other < cam.head->classes; other++) {
        MUST(drip_cam_sum(&cam, cam.head->classes - 1, other, scratch, map, &sum) == DRIP_ERR_OK);
        MUST(sum >= 0);
    }
    MUST(drip_cam_sum(&cam, cam.head->classes, -1, scratch, map, &sum) == DRIP_ERR_ARGUMENT);
    MUST(drip_cam_sum(&cam, 0, cam.head->classes, scratch, map, &sum) == DRIP_ERR_ARGUMENT);
    free(map);
    free(scratch);
}

static void look_at_scores(const drip_nn_t *nn)
{
    int kind;

    for (kind = 0; kind <= DRIP_SCORE_LAST + 1; kind++) {
        drip_score_t score;
        drip_score_result_t result;
        uint8_t *scratch;

        if (drip_score_open(&score, nn, (uint8_t)kind, 7) != DRIP_ERR_OK) {
            continue;
        }
        scratch = fuzz_block(drip_score_scratch_bytes(&score), 0xA5);
        MUST(drip_score_compute(&score, scratch, &result) == DRIP_ERR_OK);
        MUST(result.class_1 < score.classes && result.class_2 < score.classes);
        if (score.thresholds != NULL) {
            (void)drip_crc32(0, score.thresholds, 2u * score.classes);
        }
        free(scratch);
    }
}

/* The sections that only hosts read are found by the same table. */
static void look_at_sections(const drip_nn_t *nn)
{
    uint16_t kind;

    for (kind = 0; kind <= DRIP_SECTION_META + 1; kind++) {
        uint16_t index = 0;
        const drip_blob_section_t *section;

        while ((section = drip_nn_section(nn, kind, index)) != NULL) {
            (void)drip_crc32(0, nn->blob + section->offset, section->size);
            index++;
        }
    }
}

static uint32_t golden_count(const drip_nn_t *nn)
{
    const drip_blob_section_t *section = drip_nn_section(nn, DRIP_SECTION_GOLDEN, 0);
    drip_blob_golden_t golden;

    if (section == NULL || section->size < sizeof(golden)) {
        return 0;
    }
    memcpy(&golden, nn->blob + section->offset, sizeof(golden));
    return golden.count <= section->size ? golden.count : 0;
}

/* What sound for a whole input costs, in multiply-accumulates or so. */
static uint64_t front_end_work(const drip_nn_t *nn)
{
    const drip_blob_frontend_t *desc = &nn->frontend.desc;

    return desc->fft == 0 ? 0 : (uint64_t)nn->input.elements / desc->mels * desc->fft * 32;
}

static void use(drip_nn_t *nn)
{
    uint8_t *arena;
    uint32_t work;
    uint32_t tensor;

    look_at_sections(nn);
    if (nn->header.arena_bytes > ARENA_LIMIT) {
        return;
    }
    MUST(drip_nn_begin(nn) == DRIP_ERR_STATE && drip_nn_step(nn, BUDGET) == DRIP_ERR_STATE);
    arena = fuzz_block(nn->header.arena_bytes, 0x5A);
    if (nn->header.arena_bytes > 0) {
        MUST(drip_nn_bind(nn, arena, nn->header.arena_bytes - 1) == DRIP_ERR_MEMORY);
    }
    MUST(drip_nn_bind(nn, arena, nn->header.arena_bytes) == DRIP_ERR_OK);
    quantise(nn);
    work = run(nn);
    for (tensor = 0; tensor <= nn->tensor_count; tensor++) {
        touch(nn, tensor);
    }
    look_at_cam(nn);
    look_at_scores(nn);
    if (work != 0 && (work + front_end_work(nn)) * golden_count(nn) <= SELFTEST_LIMIT) {
        (void)drip_nn_selftest(nn);
    }
    free(arena);
}

/* The smallest arena that tensors and scratch say they need. */
static uint32_t tight_arena(const drip_nn_t *nn)
{
    uint32_t need = 0;
    uint32_t i;

    for (i = 0; i < nn->tensor_count; i++) {
        const uint32_t end = nn->tensors[i].arena_offset + nn->tensors[i].size;

        need = end > need ? end : need;
    }
    for (i = 0; i < nn->op_count; i++) {
        const uint32_t end = nn->ops[i].scratch_offset + nn->ops[i].scratch_bytes;

        need = end > need ? end : need;
    }
    return need;
}

/* Returns the smallest arena of a blob that was opened, or 0. */
static uint32_t try_blob(const uint8_t *bytes, uint32_t size)
{
    uint8_t *blob = fuzz_block(size, 0);
    uint32_t arena = 0;
    drip_nn_t nn;
    int code;

    memcpy(blob, bytes, size);
    code = drip_nn_open(&nn, blob, size);
    MUST(code <= DRIP_ERR_OK && code >= DRIP_ERR_NO_CAM);
    if (code == DRIP_ERR_OK) {
        arena = tight_arena(&nn);
        MUST(arena > 0 && arena <= nn.header.arena_bytes);
        use(&nn);
    }
    free(blob);
    return arena;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input_t input = {data, size};
    drip_blob_header_t header;
    uint8_t *fixed;
    uint32_t fixed_bytes;
    uint32_t arena;

    if (size > INPUT_LIMIT) {
        return 0;
    }
    fixed = fuzz_block(size, 0);
    fuzz_take(&input, fixed, size);
    (void)try_blob(fixed, (uint32_t)size);
    fixed_bytes = fuzz_fix_blob(fixed, (uint32_t)size);
    arena = try_blob(fixed, fixed_bytes);
    memcpy(&header, fixed, size < sizeof(header) ? size : sizeof(header));
    if (arena != 0 && arena != header.arena_bytes) {
        header.arena_bytes = arena;
        memcpy(fixed, &header, sizeof(header));
        fixed_bytes = fuzz_fix_blob(fixed, fixed_bytes);
        MUST(try_blob(fixed, fixed_bytes) == arena);
    }
    free(fixed);
    return 0;
}
