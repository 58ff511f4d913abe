/* The two inner loops of a convolution on a Cortex-M with DSP instructions.
 *
 * Four columns times two channels keep eight sums in registers: 13 instructions do 16
 * multiply-accumulates. A compiler spills here, so the loops are written out. */
#include "dsp.h"

#ifdef DRIP_DSP

#include <stddef.h>

_Static_assert(offsetof(drip_dsp_block_t, weights) == 0, "block");
_Static_assert(offsetof(drip_dsp_block_t, columns) == 16, "block");
_Static_assert(offsetof(drip_dsp_block_t, quant) == 20, "block");
_Static_assert(offsetof(drip_dsp_block_t, out) == 24, "block");
_Static_assert(offsetof(drip_dsp_block_t, pairs) == 40, "block");
_Static_assert(offsetof(drip_dsp_block_t, out_zero) == 44, "block");
_Static_assert(offsetof(drip_dsp_block_t, fast) == 48, "block");
_Static_assert(offsetof(drip_dsp_block_t, acc) == 52, "block");

/* Requantises and stores one pair of channels whatever the multipliers are. */
__attribute__((used)) void drip_dsp_block_slow(drip_dsp_block_t *block)
{
    const uint32_t channel = (uint32_t)(block->quant - block->k->quant);
    int8_t *y = block->out;
    for (uint32_t column = 0; column < block->count; column++) {
        drip_emit(block->k, channel, (uint32_t)block->acc[2 * column], y);
        if (block->pairs != 1 || !block->single)
            drip_emit(block->k, channel + 1, (uint32_t)block->acc[2 * column + 1], y + 1);
        if (column < 3)
            y += block->step[column];
    }
    block->quant += 2;
    block->out += 2;
}

/* Two taps of two channels and four columns: r4, r6, r8, r10 sum channel a; r5, r7, r9, r11 b. */
#define STEP                                                                                       \
    "ldr r3, [r1], #4\n\t"                                                                         \
    "ldrd r12, lr, [r0], #8\n\t"                                                                   \
    "sxtb16 r2, r3\n\t"                                                                            \
    "sxtb16 r3, r3, ror #8\n\t"                                                                    \
    "smlad r4, r12, r2, r4\n\t"                                                                    \
    "smlad r5, r12, r3, r5\n\t"                                                                    \
    "smlad r6, lr, r2, r6\n\t"                                                                     \
    "smlad r7, lr, r3, r7\n\t"                                                                     \
    "ldrd r12, lr, [r0], #8\n\t"                                                                   \
    "smlad r8, r12, r2, r8\n\t"                                                                    \
    "smlad r9, r12, r3, r9\n\t"                                                                    \
    "smlad r10, lr, r2, r10\n\t"                                                                   \
    "smlad r11, lr, r3, r11\n\t"

/* Four taps of two channels and two columns that r0 and r2 point at. */
#define STEP2                                                                                      \
    "ldrd r8, r9, [r1], #8\n\t"                                                                    \
    "ldr r10, [r0], #4\n\t"                                                                        \
    "ldr r11, [r2], #4\n\t"                                                                        \
    "sxtb16 r12, r8\n\t"                                                                           \
    "sxtb16 r8, r8, ror #8\n\t"                                                                    \
    "sxtb16 lr, r10\n\t"                                                                           \
    "smlad r4, lr, r12, r4\n\t"                                                                    \
    "smlad r5, lr, r8, r5\n\t"                                                                     \
    "sxtb16 lr, r11\n\t"                                                                           \
    "smlad r6, lr, r12, r6\n\t"                                                                    \
    "smlad r7, lr, r8, r7\n\t"                                                                     \
    "sxtb16 r12, r9\n\t"                                                                           \
    "sxtb16 r9, r9, ror #8\n\t"                                                                    \
    "sxtb16 lr, r10, ror #8\n\t"                                                                   \
    "smlad r4, lr, r12, r4\n\t"                                                                    \
    "smlad r5, lr, r9, r5\n\t"                                                                     \
    "sxtb16 lr, r11, ror #8\n\t"                                                                   \
    "smlad r6, lr, r12, r6\n\t"                                                                    \
    "smlad r7, lr, r9, r7\n\t"

/* drip_dsp_requant of one register: multiplier r2, right shift r3, zero point r1. */
#define REQUANT(acc)                                                                               \
    "smull r12, lr, " acc ", r2\n\t"                                                               \
    "lsrs r12, r12, #31\n\t"                                                                       \
    "adc lr, r12, lr, lsl #1\n\t"                                                                  \
    "add lr, lr, lr, asr #31\n\t"                                                                  \
    "asrs lr, lr, r3\n\t"                                                                          \
    "adc " acc ", lr, r1\n\t"                                                                      \
    "ssat " acc ", #8, " acc "\n\t"

/* The stack holds the block and the end of the present pair's weights. The loop is unrolled for 16
 * taps and entered so that it ends after whole rounds. */
__attribute__((naked)) void drip_dsp_block4(drip_dsp_block_t *block)
{
    (void)block;
    /* clang-format off */
    __asm volatile(
        "push {r0, r1, r2, r4-r11, lr}\n\t"
        "ldr r1, [r0, #8]\n\t"
        "rsb r1, r1, #0\n\t"
        "and r1, r1, #24\n\t" /* weights that the first round skips: 8 bytes are 104 of code */
        "mov r2, #13\n\t"
        "mul r1, r1, r2\n\t"
        "adr r2, 1f\n\t"
        "add r1, r1, r2\n\t"
        "orr r1, r1, #1\n\t"
        "str r1, [r0, #12]\n\t"
        "0:\n\t"
        "ldm r0, {r1, r2, r3, r12}\n\t"
        "ldrd r4, r5, [r2], #8\n\t"
        "add r3, r3, r1\n\t"
        "str r3, [sp, #4]\n\t"
        "strd r3, r2, [r0]\n\t"
        "ldr r0, [r0, #16]\n\t"
        "mov r6, r4\n\t"
        "mov r7, r5\n\t"
        "mov r8, r4\n\t"
        "mov r9, r5\n\t"
        "mov r10, r4\n\t"
        "mov r11, r5\n\t"
        "bx r12\n\t"
        ".balign 4\n\t"
        "1:\n\t" STEP STEP STEP STEP STEP STEP STEP STEP
        "2:\n\t"
        "ldr r2, [sp, #4]\n\t"
        "cmp r1, r2\n\t"
        "bne.w 1b\n\t"
        "ldr r0, [sp]\n\t"
        "ldr r1, [r0, #48]\n\t"
        "cbnz r1, 4f\n\t"
        "add r1, r0, #52\n\t"
        "stm r1, {r4-r11}\n\t"
        "bl drip_dsp_block_slow\n\t"
        "ldr r0, [sp]\n\t"
        "b.w 3f\n\t"
        "4:\n\t"
        "ldr r12, [r0, #20]\n\t"
        "ldr r1, [r0, #44]\n\t"
        "ldrd r2, r3, [r12], #16\n\t"
        "str r12, [r0, #20]\n\t"
        "rsb r3, r3, #0\n\t"
        REQUANT("r4") REQUANT("r6") REQUANT("r8") REQUANT("r10")
        "ldr r12, [r0, #20]\n\t"
        "ldrd r2, r3, [r12, #-8]\n\t"
        "rsb r3, r3, #0\n\t"
        REQUANT("r5") REQUANT("r7") REQUANT("r9") REQUANT("r11")
        "add r12, r0, #24\n\t"
        "ldm r12, {r1, r2, r3, r12}\n\t"
        "add lr, r1, #2\n\t"
        "str lr, [r0, #24]\n\t"
        "strb r4, [r1]\n\t"
        "strb r5, [r1, #1]\n\t"
        "add r1, r1, r2\n\t"
        "strb r6, [r1]\n\t"
        "strb r7, [r1, #1]\n\t"
        "add r1, r1, r3\n\t"
        "strb r8, [r1]\n\t"
        "strb r9, [r1, #1]\n\t"
        "add r1, r1, r12\n\t"
        "strb r10, [r1]\n\t"
        "strb r11, [r1, #1]\n\t"
        "3:\n\t"
        "ldr r1, [r0, #40]\n\t"
        "subs r1, r1, #1\n\t"
        "str r1, [r0, #40]\n\t"
        "bne.w 0b\n\t"
        "pop {r0, r1, r2, r4-r11, pc}\n\t"
        ".if (2b - 1b) != 4 * 104\n\t"
        ".error \"drip_dsp_block4: size of the loop\"\n\t"
        ".endif\n\t");
    /* clang-format on */
}

__attribute__((naked)) void drip_dsp_block2(drip_dsp_block_t *block)
{
    (void)block;
    /* clang-format off */
    __asm volatile("push {r0, r1, r2, r4-r11, lr}\n\t"
                   "0:\n\t"
                   "ldm r0, {r1, r2, r3, r12}\n\t"
                   "ldrd r4, r5, [r2], #8\n\t"
                   "tst r3, #8\n\t"
                   "add r3, r3, r1\n\t"
                   "strd r3, r2, [r0]\n\t"
                   "ldr r0, [r0, #16]\n\t"
                   "mov r2, r12\n\t"
                   "mov r6, r4\n\t"
                   "mov r7, r5\n\t"
                   "bne 2f\n\t"
                   "1:\n\t" STEP2
                   "2:\n\t" STEP2
                   "cmp r1, r3\n\t"
                   "bne 1b\n\t"
                   "ldr r0, [sp]\n\t"
                   "ldr r1, [r0, #48]\n\t"
                   "cbnz r1, 4f\n\t"
                   "add r1, r0, #52\n\t"
                   "stm r1, {r4-r7}\n\t"
                   "bl drip_dsp_block_slow\n\t"
                   "ldr r0, [sp]\n\t"
                   "b 3f\n\t"
                   "4:\n\t"
                   "ldr r12, [r0, #20]\n\t"
                   "ldr r1, [r0, #44]\n\t"
                   "ldrd r2, r3, [r12], #8\n\t"
                   "ldrd r8, r9, [r12], #8\n\t"
                   "str r12, [r0, #20]\n\t"
                   "rsb r3, r3, #0\n\t"
                   REQUANT("r4") REQUANT("r6")
                   "mov r2, r8\n\t"
                   "rsb r3, r9, #0\n\t"
                   REQUANT("r5") REQUANT("r7")
                   "ldrd r1, r2, [r0, #24]\n\t"
                   "add r3, r1, #2\n\t"
                   "str r3, [r0, #24]\n\t"
                   "strb r4, [r1]\n\t"
                   "strb r5, [r1, #1]\n\t"
                   "add r1, r1, r2\n\t"
                   "strb r6, [r1]\n\t"
                   "strb r7, [r1, #1]\n\t"
                   "3:\n\t"
                   "ldr r1, [r0, #40]\n\t"
                   "subs r1, r1, #1\n\t"
                   "str r1, [r0, #40]\n\t"
                   "bne 0b\n\t"
                   "pop {r0, r1, r2, r4-r11, pc}\n\t");
    /* clang-format on */
}

/* One word of each column: taps 0 and 2 of the four columns, then taps 1 and 3. */
#define WIDEN                                                                                      \
    "ldr r8, [r3], #4\n\t"                                                                         \
    "ldr r9, [r4], #4\n\t"                                                                         \
    "ldr r10, [r5], #4\n\t"                                                                        \
    "ldr r11, [r6], #4\n\t"                                                                        \
    "sxtb16 r1, r8\n\t"                                                                            \
    "sxtb16 r7, r9\n\t"                                                                            \
    "sxtb16 r12, r10\n\t"                                                                          \
    "sxtb16 lr, r11\n\t"                                                                           \
    "stm r0!, {r1, r7, r12, lr}\n\t"                                                               \
    "sxtb16 r8, r8, ror #8\n\t"                                                                    \
    "sxtb16 r9, r9, ror #8\n\t"                                                                    \
    "sxtb16 r10, r10, ror #8\n\t"                                                                  \
    "sxtb16 r11, r11, ror #8\n\t"                                                                  \
    "stm r0!, {r8-r11}\n\t"

__attribute__((naked)) int16_t *drip_dsp_widen(const int8_t *const source[4], int16_t *out,
                                               uint32_t words)
{
    (void)source;
    (void)out;
    (void)words;
    /* clang-format off */
    __asm volatile("push {r4-r11, lr}\n\t"
                   "ldm r0, {r3-r6}\n\t"
                   "mov r0, r1\n\t"
                   "lsrs r2, r2, #1\n\t"
                   "bcc 1f\n\t" WIDEN
                   "cbz r2, 2f\n\t"
                   "1:\n\t" WIDEN WIDEN
                   "subs r2, r2, #1\n\t"
                   "bne 1b\n\t"
                   "2:\n\t"
                   "pop {r4-r11, pc}\n\t");
    /* clang-format on */
}

#else
typedef int drip_block_dsp_unused_t; /* an empty translation unit is not C */
#endif
