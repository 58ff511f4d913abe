/* The two loops of Grad-CAM that count, for a Cortex-M with DSP instructions. */
#include "cam_internal.h"

#include "kernels/dsp.h"

#ifdef DRIP_DSP

/* Eight channels of a pair of units: r2 is its row, lr its weights. r4 to r11 are the sums. */
#define EIGHT(first, rest)                                                                         \
    "ldm r2!, {r1, r3, r12}\n\t" first("r4", "r1") rest first("r5", "r3") rest first("r6", "r12")  \
        rest "ldm r2!, {r1, r3, r12}\n\t" first("r7", "r1") rest first("r8", "r3")                 \
            rest first("r9", "r12") rest "ldrd r1, r3, [r2], #8\n\t" first("r10", "r1")            \
                rest first("r11", "r3") rest "str r2, [r0, #-8]\n\t"
#define MULTIPLY(sum, word) "smuad " sum ", " word ", lr"
#define ADD(sum, word)      "smlad " sum ", " word ", lr, " sum

/* clang-format off */
__attribute__((naked)) void drip_cam_dsp_weigh(drip_cam_units_t *units, int16_t *weights,
                                               uint32_t blocks, uint32_t shift, int minus)
{
    (void)units;
    (void)weights;
    (void)blocks;
    (void)shift;
    (void)minus;
    __asm volatile(
        "push {r0-r11, lr}\n\t"
        "1:\n\t"
        "ldr r0, [sp]\n\t"
        "ldrd r2, lr, [r0], #8\n\t"
        EIGHT(MULTIPLY, "\n\t")
        "ldrd r2, lr, [r0], #8\n\t"
        "cbz r2, 3f\n\t"
        "2:\n\t"
        EIGHT(ADD, "\n\t")
        "ldrd r2, lr, [r0], #8\n\t"
        "cmp r2, #0\n\t"
        "bne 2b\n\t"
        "3:\n\t"
        "ldr r12, [sp, #12]\n\t"
        "asr r4, r4, r12\n\t"
        "asr r5, r5, r12\n\t"
        "asr r6, r6, r12\n\t"
        "asr r7, r7, r12\n\t"
        "asr r8, r8, r12\n\t"
        "asr r9, r9, r12\n\t"
        "asr r10, r10, r12\n\t"
        "asr r11, r11, r12\n\t"
        "pkhbt r4, r4, r6, lsl #16\n\t"
        "pkhbt r5, r5, r7, lsl #16\n\t"
        "pkhbt r8, r8, r10, lsl #16\n\t"
        "pkhbt r9, r9, r11, lsl #16\n\t"
        "ldrd r0, r6, [sp, #4]\n\t"
        "ldr r1, [sp, #52]\n\t"
        "cbz r1, 4f\n\t"
        "ldm r0, {r1, r2, r3, r12}\n\t"
        "ssub16 r4, r1, r4\n\t"
        "ssub16 r5, r2, r5\n\t"
        "ssub16 r8, r3, r8\n\t"
        "ssub16 r9, r12, r9\n\t"
        "4:\n\t"
        "stm r0!, {r4, r5, r8, r9}\n\t"
        "subs r6, r6, #1\n\t"
        "strd r0, r6, [sp, #4]\n\t"
        "bne 1b\n\t"
        "pop {r0-r11, pc}\n\t");
}

/* Eight channels of a position: r6 to r9 are their weights. */
#define POSITION(x, sum)                                                                           \
    "ldrd r10, r11, [" x "], #8\n\t"                                                               \
    "sxtb16 lr, r10\n\t"                                                                           \
    "smlad " sum ", lr, r6, " sum "\n\t"                                                           \
    "sxtb16 r10, r10, ror #8\n\t"                                                                  \
    "smlad " sum ", r10, r7, " sum "\n\t"                                                          \
    "sxtb16 lr, r11\n\t"                                                                           \
    "smlad " sum ", lr, r8, " sum "\n\t"                                                           \
    "sxtb16 r11, r11, ror #8\n\t"                                                                  \
    "smlad " sum ", r11, r9, " sum "\n\t"
/* Four channels. */
#define HALF_POSITION(x, sum)                                                                      \
    "ldr r10, [" x "], #4\n\t"                                                                     \
    "sxtb16 lr, r10\n\t"                                                                           \
    "smlad " sum ", lr, r6, " sum "\n\t"                                                           \
    "sxtb16 r10, r10, ror #8\n\t"                                                                  \
    "smlad " sum ", r10, r7, " sum "\n\t"

/* 21 instructions for 16 multiply-accumulates, 16 for a pair of positions. */
__attribute__((naked)) uint32_t drip_cam_dsp_total(const int16_t *weights, const int8_t *x,
                                                   uint32_t channels, uint32_t pairs,
                                                   uint32_t start)
{
    (void)weights;
    (void)x;
    (void)channels;
    (void)pairs;
    (void)start;
    __asm volatile(
        "push {r0-r11, lr}\n\t"
        "movs r2, #0\n\t"
        "mov r12, r1\n\t"
        "0:\n\t"
        "mov r1, r12\n\t"
        "ldr r0, [sp]\n\t"
        "ldr r3, [sp, #8]\n\t"
        "ldr r4, [sp, #52]\n\t"
        "mov r5, r4\n\t"
        "add r12, r1, r3\n\t"
        "lsrs r3, r3, #3\n\t"
        "bcc 1f\n\t"
        "ldrd r6, r7, [r0], #8\n\t"
        HALF_POSITION("r1", "r4")
        HALF_POSITION("r12", "r5")
        "cbz r3, 2f\n\t"
        "1:\n\t"
        "ldm r0!, {r6-r9}\n\t"
        POSITION("r1", "r4")
        POSITION("r12", "r5")
        "subs r3, r3, #1\n\t"
        "bne 1b\n\t"
        "2:\n\t"
        "bic r4, r4, r4, asr #31\n\t"
        "bic r5, r5, r5, asr #31\n\t"
        "add r2, r2, r4\n\t"
        "add r2, r2, r5\n\t"
        "ldr r3, [sp, #12]\n\t"
        "subs r3, r3, #1\n\t"
        "str r3, [sp, #12]\n\t"
        "bne 0b\n\t"
        "mov r0, r2\n\t"
        "add sp, sp, #16\n\t"
        "pop {r4-r11, pc}\n\t");
}
/* clang-format on */

#else
typedef int drip_cam_dsp_unused_t;
#endif
