/* Counts what a lossless codec of sensor frames costs on a Cortex-M4 (see codec.py).
 *
 * inputs: u32 frames, elements, element bytes, step (elements to the one that predicts: channels), row
 * (elements of a row; 0 = predict by one neighbour), then the frames.
 * Prints per frame "frame INSTRUCTIONS BYTES". */
#include <string.h>

#include "board.h"

enum { BLOCK = 16, ALL_ZERO = 15, LIMIT = 16 };

extern const uint8_t inputs_start[];

static uint8_t packed[1 << 16];

typedef struct {
    uint8_t *at;
    uint32_t bits; /* not yet written, lowest ones */
    uint32_t count;
} writer_t;

static inline void put(writer_t *to, uint32_t value, uint32_t count)
{
    to->bits = to->bits << count | value;
    to->count += count;
    while (to->count >= 8) {
        to->count -= 8;
        *to->at++ = (uint8_t)(to->bits >> to->count);
    }
}

static inline int32_t load(const uint8_t *frame, uint32_t at, uint32_t wide)
{
    int16_t value;

    if (!wide) {
        return frame[at];
    }
    memcpy(&value, frame + 2 * at, 2);
    return value;
}

/* Left neighbour, or the median of left, above and left + above - corner (LOCO-I). */
static inline int32_t predict(const uint8_t *frame, uint32_t i, uint32_t wide, uint32_t step,
                              uint32_t row)
{
    int32_t left, above, corner, low, high;

    if (i < step) {
        return 0;
    }
    left = load(frame, i - step, wide);
    if (row == 0 || i < row + step) {
        return left;
    }
    above = load(frame, i - row, wide);
    corner = load(frame, i - row - step, wide);
    low = left < above ? left : above;
    high = left < above ? above : left;
    return corner >= high ? low : corner <= low ? high : left + above - corner;
}

static inline uint32_t zigzag(int32_t difference, uint32_t wide)
{
    int32_t d = wide ? (int16_t)difference : (int8_t)difference;

    return ((uint32_t)d << 1 ^ (uint32_t)(d >> 31)) & (wide ? 0xFFFFu : 0xFFu);
}

static void put_block(writer_t *to, const uint16_t *residual, uint32_t count, uint32_t sum,
                      uint32_t width)
{
    uint32_t k = sum * 11 >> 8;
    uint32_t i;

    if (sum == 0) {
        put(to, ALL_ZERO, 4);
        return;
    }
    k = k == 0 ? 0 : 32 - (uint32_t)__builtin_clz(k);
    k = k > 14 ? 14 : k;
    put(to, k, 4);
    for (i = 0; i < count; i++) {
        uint32_t q = residual[i] >> k;

        if (q < LIMIT) {
            put(to, (1u << (q + 1)) - 2, q + 1);
            put(to, residual[i] & ((1u << k) - 1), k);
        } else {
            put(to, 0xFFFF, LIMIT);
            put(to, residual[i], width);
        }
    }
}

static inline uint32_t encode(const uint8_t *frame, uint32_t elements, uint32_t wide, uint32_t step,
                              uint32_t row)
{
    writer_t to = {packed, 0, 0};
    uint16_t residual[BLOCK];
    uint32_t i = 0;

    while (i < elements) {
        uint32_t sum = 0;
        uint32_t n;

        for (n = 0; n < BLOCK && i < elements; n++, i++) {
            int32_t guess = predict(frame, i, wide, step, row);

            residual[n] = (uint16_t)zigzag(load(frame, i, wide) - guess, wide);
            sum += residual[n];
        }
        put_block(&to, residual, n, sum, wide ? 16 : 8);
    }
    put(&to, 0, 7);
    return (uint32_t)(to.at - packed);
}

/* A variant each, so that what is constant costs nothing. */
static __attribute__((noinline)) uint32_t encode_bytes(const uint8_t *frame, uint32_t elements,
                                                       uint32_t step)
{
    return encode(frame, elements, 0, step, 0);
}

static __attribute__((noinline)) uint32_t encode_words(const uint8_t *frame, uint32_t elements,
                                                       uint32_t step)
{
    return encode(frame, elements, 1, step, 0);
}

static __attribute__((noinline)) uint32_t encode_image(const uint8_t *frame, uint32_t elements,
                                                       uint32_t step, uint32_t row)
{
    return encode(frame, elements, 0, step, row);
}

int main(void)
{
    uint32_t about[5];
    const uint8_t *frame = inputs_start + sizeof(about);
    uint32_t n;

    memcpy(about, inputs_start, sizeof(about));
    for (n = 0; n < about[0]; n++) {
        uint32_t start = board_count();
        uint32_t bytes = about[4] != 0   ? encode_image(frame, about[1], about[3], about[4])
                         : about[2] == 2 ? encode_words(frame, about[1], about[3])
                                         : encode_bytes(frame, about[1], about[3]);
        uint32_t spent = board_count() - start;

        board_text("frame ");
        board_hex(spent);
        board_hex(bytes);
        board_text("\n");
        frame += about[1] * about[2];
    }
    return 0;
}
