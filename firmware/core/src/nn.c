#include "nn_internal.h"

#include "drip/bytes.h"

enum { SELFTEST_BUDGET = 1 << 24 };

void drip_nn_resolve(const drip_nn_t *nn, uint32_t index, drip_kernel_t *kernel)
{
    const drip_blob_op_t *op = &nn->ops[index];
    memset(kernel, 0, sizeof *kernel);
    kernel->op = op;
    kernel->in0 = &nn->tensors[op->in0];
    kernel->in1 = op->in1 != DRIP_NO_TENSOR ? &nn->tensors[op->in1] : NULL;
    kernel->out = &nn->tensors[op->out];
    if (nn->arena == NULL)
        return;
    int8_t *arena = (int8_t *)nn->arena;
    kernel->x0 = arena + kernel->in0->arena_offset;
    kernel->y = arena + kernel->out->arena_offset;
    kernel->scratch = arena + op->scratch_offset;
    /* Offsets that the operator does not use were not checked, so the address is made from data only
     * where it can lie inside. */
    if (op->weights_offset <= nn->data_bytes)
        kernel->weights = (const int8_t *)nn->data + op->weights_offset;
    if (op->bias_offset <= nn->data_bytes)
        kernel->bias = (const int32_t *)(const void *)(nn->data + op->bias_offset);
    if (op->quant_offset <= nn->data_bytes)
        kernel->quant = (const drip_blob_quant_t *)(const void *)(nn->data + op->quant_offset);
    kernel->x1 = kernel->weights;
    if (kernel->in1 != NULL) {
        kernel->x1 = arena + kernel->in1->arena_offset;
        kernel->signs = arena + kernel->in1->arena_offset;
    }
}

int drip_nn_bind(drip_nn_t *nn, void *arena, uint32_t arena_bytes)
{
    if (arena_bytes < nn->arena_bytes)
        return DRIP_ERR_MEMORY;
    if (arena == NULL || ((uintptr_t)arena & (DRIP_BLOB_ALIGN - 1)) != 0)
        return DRIP_ERR_ALIGN;
    nn->arena = arena;
    nn->op = nn->op_count;
    nn->row = 0;
    return DRIP_ERR_OK;
}

int8_t *drip_nn_input(const drip_nn_t *nn)
{
    if (nn->arena == NULL)
        return NULL;
    return (int8_t *)nn->arena + nn->tensors[nn->header.input_tensor].arena_offset;
}

int drip_nn_begin(drip_nn_t *nn)
{
    if (nn->arena == NULL)
        return DRIP_ERR_STATE;
    nn->op = 0;
    nn->row = 0;
    return DRIP_ERR_OK;
}

int drip_nn_step(drip_nn_t *nn, uint32_t budget)
{
    if (nn->arena == NULL)
        return DRIP_ERR_STATE;
    if (nn->op >= nn->op_count)
        return 0;
    drip_kernel_t kernel;
    drip_plan_t plan = {0, 0, 0, 0, 0};
    drip_nn_resolve(nn, nn->op, &kernel);
    drip_kernel_plan(&kernel, &plan);
    uint32_t count = plan.cost != 0 ? budget / plan.cost : budget;
    if (count == 0)
        count = 1;
    if (count > plan.units - nn->row)
        count = plan.units - nn->row;
    drip_kernel_run(&kernel, nn->row, count);
    nn->row += count;
    if (nn->row == plan.units) {
        nn->row = 0;
        nn->op++;
    }
    return nn->op < nn->op_count;
}

const int8_t *drip_nn_tensor(const drip_nn_t *nn, uint16_t tensor, const drip_blob_tensor_t **desc)
{
    if (nn->arena == NULL || tensor >= nn->tensor_count)
        return NULL;
    if (desc != NULL)
        *desc = &nn->tensors[tensor];
    return (const int8_t *)nn->arena + nn->tensors[tensor].arena_offset;
}

const drip_blob_section_t *drip_nn_section(const drip_nn_t *nn, uint16_t kind, uint16_t index)
{
    const drip_blob_section_t *section =
        (const drip_blob_section_t *)(const void *)(nn->blob + nn->header.header_bytes);
    for (uint32_t i = 0; i < nn->header.section_count; i++, section++)
        if (section->kind == kind && index-- == 0)
            return section;
    return NULL;
}

const drip_blob_golden_t *drip_nn_golden(const drip_nn_t *nn, int *is_sound)
{
    const drip_blob_section_t *section = drip_nn_section(nn, DRIP_SECTION_GOLDEN, 0);
    if (section == NULL || section->size < sizeof(drip_blob_golden_t) ||
        section->flags > DRIP_GOLDEN_SOUND ||
        (section->flags == DRIP_GOLDEN_SOUND && nn->frontend.desc.fft == 0))
        return NULL;
    const drip_blob_golden_t *golden = (const void *)(nn->blob + section->offset);
    const uint32_t most = (section->size - (uint32_t)sizeof *golden) / (uint32_t)sizeof(uint32_t);
    *is_sound = section->flags == DRIP_GOLDEN_SOUND;
    return golden->count == 0 || golden->count > most || golden->count > DRIP_MAX_GOLDEN ? NULL
                                                                                         : golden;
}

int drip_nn_selftest_check(const drip_nn_t *nn, uint32_t n)
{
    int is_sound = 0;
    const drip_blob_golden_t *golden = drip_nn_golden(nn, &is_sound);
    const drip_blob_tensor_t *desc = NULL;
    const int8_t *values = drip_nn_tensor(nn, nn->header.logits_tensor, &desc);
    uint32_t crc = drip_crc32(0, values, desc->size);
    values = drip_nn_tensor(nn, nn->header.features_tensor, &desc);
    if (values != NULL)
        crc = drip_crc32(crc, values, desc->size);
    return golden != NULL && n < golden->count && crc == ((const uint32_t *)(golden + 1))[n]
               ? DRIP_ERR_OK
               : DRIP_ERR_SELFTEST;
}

/* Makes golden input n, infers and checks. Returns as drip_nn_selftest_load when there is no such input. */
static int selftest_input(drip_nn_t *nn, uint32_t n)
{
    int done = 0;
    do {
        done = drip_nn_selftest_load(nn, n, (uint32_t)done);
        if (done < 0)
            return done;
    } while ((uint32_t)done < nn->input.elements);
    while (drip_nn_step(nn, SELFTEST_BUDGET) > 0)
        continue;
    return drip_nn_selftest_check(nn, n);
}

int drip_nn_selftest(drip_nn_t *nn)
{
    int n = 0, code = selftest_input(nn, 0);
    while (code == DRIP_ERR_OK) {
        n++;
        code = selftest_input(nn, (uint32_t)n);
    }
    return n != 0 && code == DRIP_ERR_CORRUPT ? n : code;
}

uint64_t drip_nn_op_bitmap(void)
{
    return DRIP_OPS;
}
