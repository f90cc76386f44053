/* Kernels for Cortex-M: two products of 16 bits an instruction where there is SMLAD (M4, M7, M33), 16 of 8 bits
   where there is Helium (M55, M85), and 16 columns in the registers of a floating-point unit. Helium's registers
   have 4 floats. */
#ifndef STEPRNN_CORTEX_H
#define STEPRNN_CORTEX_H
#include "loops.h"

#if defined(__ARM_FEATURE_MVE)
#include <arm_mve.h>

/* Products of neighbours fit 16 bits, and so does the sum of two. */
static void bytes_helium(const int8_t *w, const int8_t *q, uint32_t k, uint32_t blocks, int32_t *sums) {
    uint32_t b, r, v;
    for (b = 0; b < blocks; b++) {
        int32x4_t a[4];
        for (v = 0; v < 4; v++) a[v] = vdupq_n_s32(0);
        for (r = 0; r < k; r += 4) {
            uint32_t four;
            int8x16_t x;
            memcpy(&four, q + r, 4);
            x = vreinterpretq_s8_u32(vdupq_n_u32(four));
            for (v = 0; v < 4; v++, w += 16) {
                int8x16_t y = vld1q_s8(w);
                int16x8_t two = vaddq_s16(vmullbq_int_s8(y, x), vmulltq_int_s8(y, x));
                a[v] = vaddq_s32(vaddq_s32(a[v], vmovlbq_s16(two)), vmovltq_s16(two));
            }
        }
        for (v = 0; v < 4; v++) vst1q_s32(sums + 16 * b + 4 * v, a[v]);
    }
}
#define BYTES bytes_helium

#elif defined(__ARM_FEATURE_SIMD32)
#define STEPRNN_PAIRS 1 /* x rounded is kept in 16 bits: of four numbers the 1st and 3rd, then the 2nd and 4th */

/* The sums of four columns of a block; a word of it has four rows of one. x ends at `end`, not where it begins. */
#define FOUR_ROWS \
    "ldrd r11, r12, [r1], #8\n\t" \
    "ldm r0, {r7-r10}\n\t" \
    "add r0, r0, #64\n\t" \
    "sxtb16 lr, r7\n\t" \
    "smlad r3, lr, r11, r3\n\t" \
    "sxtb16 r7, r7, ror #8\n\t" \
    "smlad r3, r7, r12, r3\n\t" \
    "sxtb16 lr, r8\n\t" \
    "smlad r4, lr, r11, r4\n\t" \
    "sxtb16 r8, r8, ror #8\n\t" \
    "smlad r4, r8, r12, r4\n\t" \
    "sxtb16 lr, r9\n\t" \
    "smlad r5, lr, r11, r5\n\t" \
    "sxtb16 r9, r9, ror #8\n\t" \
    "smlad r5, r9, r12, r5\n\t" \
    "sxtb16 lr, r10\n\t" \
    "smlad r6, lr, r11, r6\n\t" \
    "sxtb16 r10, r10, ror #8\n\t" \
    "smlad r6, r10, r12, r6\n\t"
#if defined(__clang__)
#define IN_REGISTERS __attribute__((naked, noinline))
#else
#define IN_REGISTERS __attribute__((naked, noipa)) /* noinline alone lets gcc take parameters away */
#endif
#define UNSEEN __attribute__((unused))
IN_REGISTERS static void four_columns(UNSEEN const int8_t *w, UNSEEN const int8_t *x, UNSEEN const int8_t *end,
                                      UNSEEN int32_t *sums) {
    __asm__("push {r3-r11, lr}\n\t"
            "sub lr, r2, r1\n\t"
            "movs r3, #0\n\t"
            "movs r4, #0\n\t"
            "movs r5, #0\n\t"
            "movs r6, #0\n\t"
            "tst lr, #8\n\t"
            "bne 2f\n"
            "1:\n\t"
            FOUR_ROWS
            "2:\n\t"
            FOUR_ROWS
            "cmp r1, r2\n\t"
            "bne 1b\n\t"
            "ldr r7, [sp]\n\t"
            "stm r7, {r3-r6}\n\t"
            "pop {r3-r11, pc}");
}

static void bytes_pairs(const int8_t *w, const int8_t *q, uint32_t k, uint32_t blocks, int32_t *sums) {
    uint32_t b, four;
    for (b = 0; b < blocks; b++, w += 16 * (size_t)k)
        for (four = 0; four < 4; four++)
            four_columns(w + 16 * four, q, q + 2 * (size_t)k, sums + 16 * b + 4 * four);
}
#define BYTES bytes_pairs
#endif

#if defined(__ARM_FEATURE_MVE) && __ARM_FEATURE_MVE & 2
/* Sixteen columns at a time, one partial sum after the other. */
static void floats_helium(const real *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t at, p, r, v;
    for (at = 0; at < width; at += 8) {
        float32x4_t part[4][2];
        for (p = 0; p < 4; p++) {
            const float *row = (const float *)w + (size_t)p * width + at;
            float32x4_t a = vdupq_n_f32(0.0f), b = a;
            for (r = p; r < k; r += 4, row += 4 * (size_t)width) {
                a = vaddq_f32(a, vmulq_n_f32(vld1q_f32(row), x[r]));
                b = vaddq_f32(b, vmulq_n_f32(vld1q_f32(row + 4), x[r]));
            }
            part[p][0] = a;
            part[p][1] = b;
        }
        for (v = 0; v < 2; v++)
            vst1q_f32(sums + at + 4 * v, vaddq_f32(vaddq_f32(part[0][v], part[1][v]), vaddq_f32(part[2][v], part[3][v])));
    }
}
#define FLOATS floats_helium

#elif defined(__ARM_FP) && __ARM_FP & 4
#define MULTIPLIED \
    "vmul.f32 s0, s0, s8\n\t" \
    "vmul.f32 s1, s1, s8\n\t" \
    "vmul.f32 s2, s2, s8\n\t" \
    "vmul.f32 s3, s3, s8\n\t" \
    "vmul.f32 s4, s4, s8\n\t" \
    "vmul.f32 s5, s5, s8\n\t" \
    "vmul.f32 s6, s6, s8\n\t" \
    "vmul.f32 s7, s7, s8\n\t"
#define ADDED_LOW \
    "vadd.f32 s16, s16, s0\n\t" \
    "vadd.f32 s17, s17, s1\n\t" \
    "vadd.f32 s18, s18, s2\n\t" \
    "vadd.f32 s19, s19, s3\n\t" \
    "vadd.f32 s20, s20, s4\n\t" \
    "vadd.f32 s21, s21, s5\n\t" \
    "vadd.f32 s22, s22, s6\n\t" \
    "vadd.f32 s23, s23, s7\n\t"
#define ADDED_HIGH \
    "vadd.f32 s24, s24, s0\n\t" \
    "vadd.f32 s25, s25, s1\n\t" \
    "vadd.f32 s26, s26, s2\n\t" \
    "vadd.f32 s27, s27, s3\n\t" \
    "vadd.f32 s28, s28, s4\n\t" \
    "vadd.f32 s29, s29, s5\n\t" \
    "vadd.f32 s30, s30, s6\n\t" \
    "vadd.f32 s31, s31, s7\n\t"

/* One of the four partial sums of 16 columns, of every fourth row, and then what it is added to. */
static __attribute__((noinline)) void part_of_16(const float *w, const float *x, uint32_t rows, size_t stride,
                                                 const float *plus, const float *and_plus, float *to) {
    static const float zeros[16] = {0};
    const float *begin = zeros;
    __asm__ volatile(
        "vldm %[begin], {s16-s31}\n\t"
        "cmp %[rows], #0\n\t"
        "beq 2f\n"
        "1:\n\t"
        "vldr s8, [%[x]]\n\t"
        "vldmia %[w]!, {s0-s7}\n\t"
        MULTIPLIED
        ADDED_LOW
        "vldmia %[w]!, {s0-s7}\n\t"
        MULTIPLIED
        ADDED_HIGH
        "add %[x], %[x], #16\n\t"
        "add %[w], %[w], %[stride]\n\t"
        "subs %[rows], %[rows], #1\n\t"
        "bne 1b\n"
        "2:\n\t"
        "cmp %[plus], #0\n\t"
        "beq 3f\n\t"
        "vldmia %[plus]!, {s0-s7}\n\t"
        ADDED_LOW
        "vldm %[plus], {s0-s7}\n\t"
        ADDED_HIGH
        "mov %[plus], %[and_plus]\n\t"
        "mov %[and_plus], #0\n\t"
        "b 2b\n"
        "3:\n\t"
        "vstm %[to], {s16-s31}"
        : [w] "+r"(w), [x] "+r"(x), [rows] "+r"(rows), [plus] "+r"(plus), [and_plus] "+r"(and_plus)
        : [stride] "r"(stride), [begin] "r"(begin), [to] "r"(to)
        : "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23",
          "s24", "s25", "s26", "s27", "s28", "s29", "s30", "s31", "cc", "memory");
}

static void floats_cortex(const real *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    float part[2][16];
    uint32_t at;
    for (at = 0; at < width; at += 16) {
        const float *row = (const float *)w + at, *from = (const float *)x;
        size_t stride = 16 * (size_t)width - 64; /* bytes */
        part_of_16(row, from, (k + 3) / 4, stride, NULL, NULL, part[0]);
        part_of_16(row + width, from + 1, (k + 2) / 4, stride, part[0], NULL, part[0]);
        part_of_16(row + 2 * width, from + 2, (k + 1) / 4, stride, NULL, NULL, part[1]);
        part_of_16(row + 3 * width, from + 3, k / 4, stride, part[1], part[0], sums + at);
    }
}
#define FLOATS floats_cortex
#endif
#endif
