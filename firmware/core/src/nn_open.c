/* Checks a model blob so completely that inference needs no checks. */
#include "nn_internal.h"

#include "drip/bytes.h"

enum { AFFINE_ADD_BITS = 62, CRC_START = 16, BLOB_MAX = INT32_MAX, SECTIONS_MAX = 64 };

static int check_header(drip_nn_t *nn, const void *blob, uint32_t blob_bytes)
{
    if (blob == NULL || ((uintptr_t)blob & (DRIP_BLOB_ALIGN - 1)) != 0)
        return DRIP_ERR_ALIGN;
    if (blob_bytes < sizeof nn->header)
        return DRIP_ERR_SHORT;
    drip_blob_header_t *header = &nn->header;
    memcpy(header, blob, sizeof *header);
    if (header->magic != DRIP_BLOB_MAGIC)
        return DRIP_ERR_MAGIC;
    if (header->version != DRIP_BLOB_VERSION || header->header_bytes != sizeof *header)
        return DRIP_ERR_VERSION;
    if (header->total_bytes > blob_bytes)
        return DRIP_ERR_SHORT;
    const uint32_t table = header->section_count * (uint32_t)sizeof(drip_blob_section_t);
    if (header->total_bytes > BLOB_MAX || header->total_bytes < sizeof *header + table ||
        header->section_count > SECTIONS_MAX)
        return DRIP_ERR_CORRUPT;
    const uint8_t *bytes = blob;
    if (drip_crc32(0, bytes + CRC_START, header->total_bytes - CRC_START) != header->crc)
        return DRIP_ERR_CRC;
    if (header->signature_type != 0)
        return DRIP_ERR_SIGNATURE;
    if ((header->op_bitmap & ~drip_nn_op_bitmap()) != 0 || header->flags != 0)
        return DRIP_ERR_UNSUPPORTED;
    return header->arena_bytes <= DRIP_ARENA_MAX ? DRIP_ERR_OK : DRIP_ERR_UNSUPPORTED;
}

static int check_sections(const drip_nn_t *nn)
{
    const uint32_t start = (uint32_t)sizeof nn->header +
                           nn->header.section_count * (uint32_t)sizeof(drip_blob_section_t);
    const drip_blob_section_t *section = (const void *)(nn->blob + sizeof nn->header);
    for (uint32_t i = 0; i < nn->header.section_count; i++, section++)
        if (section->offset < start ||
            !drip_range_ok(section->offset, section->size, nn->header.total_bytes, DRIP_BLOB_ALIGN))
            return DRIP_ERR_CORRUPT;
    return DRIP_ERR_OK;
}

/* Finds an array section of 1..65535 elements of `size` bytes. */
static const void *find_array(const drip_nn_t *nn, uint16_t kind, uint32_t size, uint16_t *count)
{
    const drip_blob_section_t *section = drip_nn_section(nn, kind, 0);
    if (section == NULL || section->count == 0 || section->count >= DRIP_NO_TENSOR ||
        section->size != section->count * size)
        return NULL;
    *count = (uint16_t)section->count;
    return nn->blob + section->offset;
}

static int find_sections(drip_nn_t *nn)
{
    nn->tensors =
        find_array(nn, DRIP_SECTION_TENSORS, sizeof(drip_blob_tensor_t), &nn->tensor_count);
    nn->ops = find_array(nn, DRIP_SECTION_OPS, sizeof(drip_blob_op_t), &nn->op_count);
    const drip_blob_section_t *data = drip_nn_section(nn, DRIP_SECTION_DATA, 0);
    if (nn->tensors == NULL || nn->ops == NULL || data == NULL)
        return DRIP_ERR_CORRUPT;
    nn->data = nn->blob + data->offset;
    nn->data_bytes = data->size;
    nn->arena_bytes = nn->header.arena_bytes;
    return DRIP_ERR_OK;
}

static int check_tensors(const drip_nn_t *nn)
{
    for (uint32_t i = 0; i < nn->tensor_count; i++) {
        const drip_blob_tensor_t *tensor = &nn->tensors[i];
        uint32_t size = 0;
        if (tensor->h == 0 || tensor->w == 0 || tensor->c == 0 ||
            drip_mul_overflows((uint32_t)tensor->h * tensor->w, tensor->c, &size) ||
            size != tensor->size || !drip_zero_ok(tensor->zero_point) ||
            !drip_range_ok(tensor->arena_offset, size, nn->arena_bytes, 4))
            return DRIP_ERR_CORRUPT;
    }
    const drip_blob_header_t *header = &nn->header;
    if (header->input_tensor >= nn->tensor_count || header->logits_tensor >= nn->tensor_count)
        return DRIP_ERR_CORRUPT;
    return header->features_tensor < nn->tensor_count || header->features_tensor == DRIP_NO_TENSOR
               ? DRIP_ERR_OK
               : DRIP_ERR_CORRUPT;
}

/* Biases and multipliers of the output channels. */
static int check_channels(const drip_nn_t *nn, const drip_blob_op_t *op, uint32_t channels)
{
    if (!drip_range_ok(op->bias_offset, channels * 4u, nn->data_bytes, 4) ||
        !drip_range_ok(op->quant_offset, channels * (uint32_t)sizeof(drip_blob_quant_t),
                       nn->data_bytes, 4))
        return DRIP_ERR_CORRUPT;
    const drip_blob_quant_t *quant = (const void *)(nn->data + op->quant_offset);
    for (uint32_t c = 0; c < channels; c++)
        if (!drip_scale_ok(quant[c].mult, quant[c].shift))
            return DRIP_ERR_CORRUPT;
    return DRIP_ERR_OK;
}

static int check_op(const drip_nn_t *nn, uint32_t index)
{
    const drip_blob_op_t *op = &nn->ops[index];
    if (op->in0 >= nn->tensor_count || op->out >= nn->tensor_count ||
        (op->in1 >= nn->tensor_count && op->in1 != DRIP_NO_TENSOR) || !drip_zero_ok(op->in0_zero) ||
        !drip_zero_ok(op->in1_zero) || !drip_zero_ok(op->out_zero))
        return DRIP_ERR_CORRUPT;
    if (op->kind > 31 || ((uint32_t)nn->header.op_bitmap >> op->kind & 1u) == 0)
        return DRIP_ERR_CORRUPT;
    drip_kernel_t kernel;
    drip_plan_t plan = {0, 0, 0, 0, 0};
    drip_nn_resolve(nn, index, &kernel);
    const int result = drip_kernel_plan(&kernel, &plan);
    if (result != DRIP_ERR_OK)
        return result;
    if (plan.units == 0)
        return DRIP_ERR_CORRUPT;
    if (plan.weights_bytes != 0 &&
        (plan.weights_bytes != op->weights_bytes ||
         !drip_range_ok(op->weights_offset, op->weights_bytes, nn->data_bytes, 4)))
        return DRIP_ERR_CORRUPT;
    if (plan.scratch_bytes > op->scratch_bytes ||
        !drip_range_ok(op->scratch_offset, op->scratch_bytes, nn->arena_bytes, DRIP_BLOB_ALIGN))
        return DRIP_ERR_CORRUPT;
    return plan.channels != 0 ? check_channels(nn, op, plan.channels) : DRIP_ERR_OK;
}

static int check_ops(const drip_nn_t *nn)
{
    for (uint32_t i = 0; i < nn->op_count; i++) {
        const int result = check_op(nn, i);
        if (result != DRIP_ERR_OK)
            return result;
    }
    return DRIP_ERR_OK;
}

static int check_affine(const drip_blob_affine_t *affine, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        /* Room for the product of a 16-bit sample and a 32-bit multiplier. */
        const int32_t top = (int32_t)(affine[i].add >> 32) >> (AFFINE_ADD_BITS - 32);
        if (affine[i].shift < 0 || affine[i].shift > 31 || (top != 0 && top != -1))
            return DRIP_ERR_CORRUPT;
    }
    return DRIP_ERR_OK;
}

static int open_input(drip_nn_t *nn)
{
    const drip_blob_section_t *section = drip_nn_section(nn, DRIP_SECTION_INPUT, 0);
    drip_frame_input_t *input = &nn->input;
    if (section == NULL || section->size < sizeof input->desc)
        return DRIP_ERR_CORRUPT;
    const uint8_t *bytes = nn->blob + section->offset;
    memcpy(&input->desc, bytes, sizeof input->desc);
    input->affine = (const void *)(bytes + sizeof input->desc);
    const drip_blob_input_t *desc = &input->desc;
    uint32_t elements = 1;
    for (uint32_t i = 0; i < 4; i++)
        if (desc->shape[i] == 0 || drip_mul_overflows(elements, desc->shape[i], &elements))
            return DRIP_ERR_CORRUPT;
    if (desc->dtype < DRIP_DTYPE_U8 || desc->dtype > DRIP_DTYPE_I16 || desc->rank == 0 ||
        desc->rank > 4 || elements > DRIP_MAX_FRAME_BYTES ||
        desc->frame_bytes != (desc->dtype == DRIP_DTYPE_I16 ? 2 * elements : elements) ||
        desc->frame_bytes > DRIP_MAX_FRAME_BYTES)
        return DRIP_ERR_CORRUPT;
    if (desc->channels == 0 ||
        (section->size - sizeof *desc) / sizeof(drip_blob_affine_t) < desc->channels)
        return DRIP_ERR_CORRUPT;
    input->elements = elements;
    const int result = drip_nn_open_frontend(nn, elements);
    if (result != DRIP_ERR_OK)
        return result;
    if (input->elements != nn->tensors[nn->header.input_tensor].size ||
        desc->channels > input->elements)
        return DRIP_ERR_CORRUPT;
    return check_affine(input->affine, desc->channels);
}

int drip_nn_open(drip_nn_t *nn, const void *blob, uint32_t blob_bytes)
{
    memset(nn, 0, sizeof *nn);
    int result = check_header(nn, blob, blob_bytes);
    if (result != DRIP_ERR_OK)
        return result;
    nn->blob = blob;
    result = check_sections(nn);
    if (result == DRIP_ERR_OK)
        result = find_sections(nn);
    if (result == DRIP_ERR_OK)
        result = check_tensors(nn);
    if (result == DRIP_ERR_OK)
        result = check_ops(nn);
    if (result == DRIP_ERR_OK)
        result = open_input(nn);
    return result;
}
