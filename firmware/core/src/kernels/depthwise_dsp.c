/* DEPTHWISE_CONV_2D in layout PLANES on a Cortex-M with DSP instructions: a channel is copied into a
 * padded plane of 16-bit values, where neighbours along a row are pairs for SMLAD. */
#include "dsp.h"

#ifdef DRIP_DSP

#include <stddef.h>

/* One channel's convolution, turned by 90 degrees where that makes longer rows. */
typedef struct {
    int32_t in_h, in_w, out_h, out_w;
    int32_t kernel_h, kernel_w, stride_h, stride_w, top, left;
    int32_t row;     /* taps of a kernel row, a multiple of 4 */
    int32_t pitch;   /* of the plane */
    int32_t rows;    /* of the plane */
    uint32_t x_step; /* bytes from a value of the input to the next one in its row */
    uint32_t x_row;  /* and from row to row */
    uint32_t y_step; /* the same for the output */
    uint32_t y_row;
    uint32_t swap; /* turned, and the weights are not stored that way */
} plane_t;

static void plane_of(const drip_kernel_t *k, plane_t *p)
{
    const drip_blob_op_t *op = k->op;
    const uint32_t h = k->out->h, w = k->out->w;
    p->swap = op->kernel_h == 3 && op->kernel_w == 3 && h * ((w + 3) / 4) > w * ((h + 3) / 4);
    const int turned = p->swap || (op->kernel_w == 1 && k->in0->w == 1);
    p->in_h = turned ? k->in0->w : k->in0->h;
    p->in_w = turned ? k->in0->h : k->in0->w;
    p->out_h = turned ? k->out->w : k->out->h;
    p->out_w = turned ? k->out->h : k->out->w;
    p->kernel_h = turned ? op->kernel_w : op->kernel_h;
    p->kernel_w = turned ? op->kernel_h : op->kernel_w;
    p->stride_h = turned ? op->stride_w : op->stride_h;
    p->stride_w = turned ? op->stride_h : op->stride_w;
    p->top = turned ? op->pad_left : op->pad_top;
    p->left = turned ? op->pad_top : op->pad_left;
    const uint32_t channels = k->in0->c;
    p->x_step = turned ? channels * k->in0->w : channels;
    p->x_row = turned ? channels : channels * k->in0->w;
    p->y_step = turned ? channels * k->out->w : channels;
    p->y_row = turned ? channels : channels * k->out->w;
    p->row = (int32_t)drip_layout_row((uint32_t)p->kernel_w);
    p->pitch = ((((p->out_w + 3) & ~3) - 1) * p->stride_w + p->row + 1) & ~1;
    p->rows = (p->out_h - 1) * p->stride_h + p->kernel_h;
}

void drip_depthwise_dsp_plan(const drip_kernel_t *k, drip_plan_t *plan)
{
    plane_t p;
    plane_of(k, &p);
    uint32_t values = 0;
    plan->cost = (plan->cost / k->out->c) * plan->units;
    plan->units = k->out->c;
    plan->scratch_bytes = UINT32_MAX;
    if (drip_mul_overflows((uint32_t)p.rows, (uint32_t)p.pitch, &values) ||
        values > DRIP_ARENA_MAX || plan->weights_bytes > DRIP_ARENA_MAX)
        return; /* no arena is that large: opening will refuse it */
    plan->scratch_bytes = 2 * (values + (uint32_t)(p.kernel_h * p.row));
}

/* Copies the part of a channel that the kernel sees. The frame of padding stays as it is. */
static void copy_channel(const plane_t *p, const int8_t *x, int16_t *plane)
{
    const uint32_t step = p->x_step;
    int32_t rows = p->rows - p->top, values = p->pitch - p->left;
    rows = rows < p->in_h ? rows : p->in_h;
    values = values < p->in_w ? values : p->in_w;
    plane += p->top * p->pitch + p->left;
    for (; rows > 0; rows--) {
        const int8_t *from = x;
        int16_t *to = plane;
        int32_t n = values;
        for (; n >= 4; n -= 4) {
            const int8_t *next = from + 2 * step;
            to[0] = from[0];
            to[1] = from[step];
            to[2] = next[0];
            to[3] = next[step];
            to += 4;
            from = next + 2 * step;
        }
        for (; n > 0; n--, from += step)
            *to++ = *from;
        x += p->x_row;
        plane += p->pitch;
    }
}

/* How fast_channel adds up taps. */
enum {
    MODE_THREE, /* three rows of up to three taps, stride 1 */
    MODE_BY_1,  /* one row of any length or any number of rows of up to four taps, stride 1 */
    MODE_BY_2,  /* the same, stride 2 */
    MODE_NONE
};

static uint32_t mode_of(const drip_kernel_t *k, const plane_t *p)
{
    if ((k->op->flags & DRIP_OP_FLAG_FAST_REQUANT) == 0 || p->stride_w > 2 ||
        (p->kernel_h > 1 && p->row > 4))
        return MODE_NONE;
    if (p->stride_w == 2)
        return MODE_BY_2;
    return p->kernel_h == 3 && p->kernel_w < 4 ? MODE_THREE : MODE_BY_1;
}

/* Row `row` of a 3x3 kernel that is stored the other way, as layout PLANES would have it. */
static uint32_t swapped_row(const int8_t *weights, int32_t row)
{
    const uint32_t shift = row == 0 ? 0 : row == 1 ? 16 : 8;
    return ((drip_dsp_word(weights) >> shift) & 0xFFU) |
           (((drip_dsp_word(weights + 8) >> shift) & 0xFFU) << 8) |
           (((drip_dsp_word(weights + 4) >> shift) & 0xFFU) << 16);
}

/* Widens the weights of a channel to pairs (w0 w1), (w2 w3); in MODE_THREE to (w0 w1), (w1 w2), so
 * that a pair of values meets both neighbours. */
static void widen_weights(const plane_t *p, const int8_t *weights, uint32_t *pairs, uint32_t mode)
{
    const int32_t groups = p->kernel_h * p->row / 4;
    for (int32_t group = 0; group < groups; group++, pairs += 2) {
        const uint32_t word =
            p->swap ? swapped_row(weights, group) : drip_dsp_word(weights + 4 * group);
        pairs[0] = drip_dsp_even(word);
        pairs[1] = drip_dsp_odd(word);
        if (mode == MODE_THREE)
            pairs[1] = (pairs[0] >> 16) | (pairs[1] << 16);
    }
}

/* Everything fast_channel needs; it counts in here, too. Four outputs are done at a time. Those of
 * the last block that do not exist are written where its first one goes, before that one. */
typedef struct {
    int32_t mult, right, zero;
    uint32_t full[3]; /* from an output to the next three, bytes */
    uint32_t tail[3]; /* the same in the last block of a row */
    const uint32_t *pairs;
    int32_t x_step; /* from four taps to the next four, bytes */
    int32_t bias;
    uint32_t mode;
    int32_t groups; /* of four taps */
    int32_t x_next; /* from behind a block's last taps to the next block, bytes */
    uint32_t y_next;
    int32_t left; /* outputs of this row */
    int32_t out_w;
    const int16_t *x;
    int32_t row_step; /* of x, bytes */
    int8_t *y;
    int32_t y_back; /* from the end of the last block of a row to the next row */
    int32_t rows;
} channel_t;

_Static_assert(offsetof(channel_t, full) == 12 && offsetof(channel_t, pairs) == 36 &&
                   offsetof(channel_t, x_next) == 56 && offsetof(channel_t, rows) == 88,
               "fast_channel");

/* Three taps, (w0 w1) in r11 and (w1 w2) in r12: 12 multiply-accumulates in 12 instructions. */
#define ROW3                                                                                       \
    "ldrd r11, r12, [r1], #8\n\t"                                                                  \
    "ldrd r8, r9, [r0]\n\t"                                                                        \
    "ldr r10, [r0, #8]\n\t"                                                                        \
    "add r0, r0, r2\n\t"                                                                           \
    "smlad r4, r8, r11, r4\n\t"                                                                    \
    "smlatb r5, r8, r11, r5\n\t"                                                                   \
    "smlabt r4, r9, r12, r4\n\t"                                                                   \
    "smlad r5, r9, r12, r5\n\t"                                                                    \
    "smlad r6, r9, r11, r6\n\t"                                                                    \
    "smlatb r7, r9, r11, r7\n\t"                                                                   \
    "smlabt r6, r10, r12, r6\n\t"                                                                  \
    "smlad r7, r10, r12, r7\n\t"

/* drip_dsp_requant: multiplier r8, right shift r9, zero point r10. */
#define REQUANT(acc)                                                                               \
    "smull r11, r12, " acc ", r8\n\t"                                                              \
    "lsrs r11, r11, #31\n\t"                                                                       \
    "adc r12, r11, r12, lsl #1\n\t"                                                                \
    "add r12, r12, r12, asr #31\n\t"                                                               \
    "asrs r12, r12, r9\n\t"                                                                        \
    "adc " acc ", r12, r10\n\t"                                                                    \
    "ssat " acc ", #8, " acc "\n\t"

/* One channel. r4..r7 are the sums, r0 the values, r1 the weights, r3 the channel. */
__attribute__((naked, noinline)) static void fast_channel(channel_t *channel)
{
    (void)channel;
    /* clang-format off */
    __asm volatile(
        "push {r4-r11, lr}\n\t"
        "mov r3, r0\n\t"
        "1:\n\t" /* a row */
        "ldrd r0, r1, [r3, #72]\n\t"
        "add r1, r1, r0\n\t"
        "str r1, [r3, #72]\n\t"
        "ldr r1, [r3, #68]\n\t"
        "str r1, [r3, #64]\n\t"
        "2:\n\t" /* a block */
        "add r1, r3, #36\n\t"
        "ldm r1, {r1, r2, r4, r12, lr}\n\t"
        "mov r5, r4\n\t"
        "mov r6, r4\n\t"
        "mov r7, r4\n\t"
        "cmp r12, #1\n\t"
        "beq 3f\n\t"
        "bhi 4f\n\t" ROW3 ROW3 ROW3
        "b 5f\n\t"
        "3:\n\t" /* four taps, stride 1; pairs that begin at an odd value are read unaligned */
        "ldrd r11, r12, [r1], #8\n\t"
        "ldrd r8, r9, [r0]\n\t"
        "ldr r10, [r0, #8]\n\t"
        "smlad r4, r8, r11, r4\n\t"
        "smlad r4, r9, r12, r4\n\t"
        "smlad r6, r9, r11, r6\n\t"
        "smlad r6, r10, r12, r6\n\t"
        "ldr r8, [r0, #2]\n\t"
        "ldr r9, [r0, #6]\n\t"
        "ldr r10, [r0, #10]\n\t"
        "smlad r5, r8, r11, r5\n\t"
        "smlad r5, r9, r12, r5\n\t"
        "smlad r7, r9, r11, r7\n\t"
        "smlad r7, r10, r12, r7\n\t"
        "add r0, r0, r2\n\t"
        "subs lr, lr, #1\n\t"
        "bne 3b\n\t"
        "b 5f\n\t"
        "4:\n\t" /* four taps, stride 2 */
        "ldrd r11, r12, [r1], #8\n\t"
        "ldrd r8, r9, [r0]\n\t"
        "ldr r10, [r0, #8]\n\t"
        "smlad r4, r8, r11, r4\n\t"
        "smlad r4, r9, r12, r4\n\t"
        "smlad r5, r9, r11, r5\n\t"
        "smlad r5, r10, r12, r5\n\t"
        "smlad r6, r10, r11, r6\n\t"
        "ldrd r8, r9, [r0, #12]\n\t"
        "smlad r6, r8, r12, r6\n\t"
        "smlad r7, r8, r11, r7\n\t"
        "smlad r7, r9, r12, r7\n\t"
        "add r0, r0, r2\n\t"
        "subs lr, lr, #1\n\t"
        "bne 4b\n\t"
        "5:\n\t"
        "ldr r8, [r3, #56]\n\t"
        "add r0, r0, r8\n\t"
        "ldm r3, {r8, r9, r10}\n\t"
        REQUANT("r4") REQUANT("r5") REQUANT("r6") REQUANT("r7")
        "ldrd r12, lr, [r3, #60]\n\t"
        "subs lr, lr, #4\n\t"
        "str lr, [r3, #64]\n\t"
        "add r11, r3, #12\n\t"
        "it mi\n\t"
        "addmi r11, r11, #12\n\t"
        "ldm r11, {r8, r9, r10}\n\t"
        "ldr r1, [r3, #80]\n\t"
        "strb r7, [r1, r10]\n\t"
        "strb r6, [r1, r9]\n\t"
        "strb r5, [r1, r8]\n\t"
        "strb r4, [r1]\n\t"
        "add r1, r1, r12\n\t"
        "str r1, [r3, #80]\n\t"
        "cmp lr, #0\n\t"
        "bgt 2b\n\t"
        "ldrd r2, r12, [r3, #84]\n\t"
        "add r1, r1, r2\n\t"
        "str r1, [r3, #80]\n\t"
        "subs r12, r12, #1\n\t"
        "str r12, [r3, #88]\n\t"
        "bne 1b\n\t"
        "pop {r4-r11, pc}\n\t");
    /* clang-format on */
}

/* What is the same for all channels. */
static void channel_open(channel_t *c, const drip_kernel_t *k, const plane_t *p)
{
    const uint32_t step = p->y_step;
    const int32_t tail = p->out_w & 3;
    c->zero = k->op->out_zero;
    for (uint32_t i = 0; i < 3; i++) {
        c->full[i] = (i + 1) * step;
        c->tail[i] = (int32_t)i + 1 < tail ? c->full[i] : 0;
    }
    const int32_t single_row = p->kernel_h == 1;
    c->groups = single_row ? p->row / 4 : p->kernel_h;
    c->x_step = single_row ? 8 : 2 * p->pitch;
    c->x_next = 8 * p->stride_w - c->groups * c->x_step;
    c->row_step = 2 * p->pitch * p->stride_h;
    c->out_w = p->out_w;
    c->y_next = 4 * step;
    c->y_back = (int32_t)p->y_row - ((p->out_w + 3) & ~3) * (int32_t)step;
}

/* One output after the other, whatever kernel, stride and multiplier. */
static void slow_channel(const drip_kernel_t *k, const plane_t *p, const channel_t *c,
                         uint32_t channel)
{
    for (int32_t row = 0; row < p->out_h; row++) {
        int8_t *y = c->y + (uint32_t)row * p->y_row;
        for (int32_t column = 0; column < p->out_w; column++, y += p->y_step) {
            const int16_t *x = c->x + row * p->stride_h * p->pitch + column * p->stride_w;
            const uint32_t *pairs = c->pairs;
            int32_t sum = c->bias;
            for (int32_t ky = 0; ky < p->kernel_h; ky++, x += p->pitch)
                for (int32_t tap = 0; tap < p->row; tap += 2)
                    sum = drip_dsp_smlad(drip_dsp_word(x + tap), *pairs++, sum);
            drip_emit(k, channel, (uint32_t)sum, y);
        }
    }
}

void drip_depthwise_dsp_run(const drip_kernel_t *k, uint32_t first, uint32_t count)
{
    plane_t p;
    plane_of(k, &p);
    const int32_t values = p.rows * p.pitch;
    const int32_t taps = p.kernel_h * p.row;
    int16_t *plane = k->scratch;
    uint32_t *pairs = (uint32_t *)k->scratch + values / 2;
    if (first == 0)
        for (int32_t i = 0; i < values; i++)
            plane[i] = k->op->in0_zero;
    channel_t c = {.pairs = pairs, .mode = mode_of(k, &p)};
    channel_open(&c, k, &p);
    for (uint32_t channel = first; channel < first + count; channel++) {
        const drip_blob_quant_t *quant = &k->quant[channel];
        copy_channel(&p, k->x0 + channel, plane);
        widen_weights(&p, k->weights + channel * (uint32_t)taps, pairs, c.mode);
        c.mult = quant->mult;
        c.right = -quant->shift;
        c.bias = k->bias[channel];
        c.x = plane;
        c.y = k->y + channel;
        c.rows = p.out_h;
        if (c.mode != MODE_NONE)
            fast_channel(&c);
        else
            slow_channel(k, &p, &c, channel);
    }
}

#else
typedef int drip_depthwise_dsp_unused_t;
#endif
