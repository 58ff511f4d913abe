#include "drip/frame.h"

static int32_t raw_value(const uint8_t *data, uint32_t index, uint8_t dtype)
{
    if (dtype == DRIP_DTYPE_U8)
        return data[index];
    if (dtype == DRIP_DTYPE_I8)
        return (int8_t)data[index];
    /* A frame may start at any address: 16-bit samples are put together from bytes. */
    return (int16_t)(uint16_t)(data[2 * index] | (uint32_t)data[2 * index + 1] << 8);
}

/* A shift by a variable number of bits of a 64-bit value would call the compiler's library. */
static int8_t shift_and_clamp(int64_t value, uint32_t shift)
{
    const int32_t high = (int32_t)(value >> 32);
    const uint32_t low = (uint32_t)value;
    uint32_t result = low;
    if (shift != 0)
        result = (low >> shift) | ((uint32_t)high << (32u - shift));
    const int32_t rest = high >> shift;
    if (rest != (int32_t)result >> 31)
        return rest < 0 ? -128 : 127;
    const int32_t q = (int32_t)result;
    return (int8_t)(q < -128 ? -128 : q > 127 ? 127 : q);
}

int drip_frame_quantise(const drip_frame_input_t *input, const drip_frame_t *frame, uint32_t first,
                        uint32_t count, int8_t *out)
{
    const uint32_t bytes =
        input->desc.dtype == DRIP_DTYPE_I16 ? 2 * input->elements : input->elements;
    if (frame->size != bytes || input->desc.frame_bytes != bytes || first > input->elements ||
        count > input->elements - first)
        return DRIP_ERR_RANGE;
    const uint32_t channels = input->desc.channels;
    uint32_t channel = first % channels;
    for (uint32_t i = 0; i < count; i++) {
        const drip_blob_affine_t *map = &input->affine[channel];
        const int64_t raw = raw_value(frame->data, first + i, input->desc.dtype);
        out[first + i] = shift_and_clamp(raw * map->mult + map->add, (uint32_t)map->shift);
        if (++channel == channels)
            channel = 0;
    }
    return DRIP_ERR_OK;
}
