/* Kernels for aarch64: NEON, which each of them has, and the dot product of 8 bits, which most have. */
#ifndef STEPRNN_ARM_H
#define STEPRNN_ARM_H
#include "loops.h"
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__ARM_FEATURE_DOTPROD)
#define FOR_DOT
#elif defined(__clang__)
#define FOR_DOT __attribute__((target("dotprod")))
#else
#define FOR_DOT __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

/* The fastest kernels of this processor. */
static int best_kernels(void) {
#if defined(__ARM_FEATURE_DOTPROD)
    return STEPRNN_DOT;
#elif defined(__linux__)
    return getauxval(AT_HWCAP) >> 20 & 1 ? STEPRNN_DOT : STEPRNN_NEON; /* HWCAP_ASIMDDP */
#else
    return STEPRNN_NEON;
#endif
}

/* Eight columns of a row of a panel, float32 or int8. */
STEPRNN_INLINE void eight(const void *panel, size_t at, int bytes, float32x4_t *two) {
    if (bytes) {
        int16x8_t wide = vmovl_s8(vld1_s8((const int8_t *)panel + at));
        two[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
        two[1] = vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)));
    } else {
        two[0] = vld1q_f32((const float *)panel + at);
        two[1] = vld1q_f32((const float *)panel + at + 4);
    }
}

/* Eight columns for one vector, in four partial sums. */
STEPRNN_INLINE void columns_neon(const void *w, const real *x, uint32_t k, uint32_t width, int bytes, float *sums) {
    float32x4_t a[4][2], b[2];
    uint32_t r, p, v;
    for (p = 0; p < 4; p++) a[p][0] = a[p][1] = vdupq_n_f32(0.0f);
    for (r = 0; r + 4 <= k; r += 4)
        for (p = 0; p < 4; p++) {
            eight(w, (size_t)(r + p) * width, bytes, b);
            for (v = 0; v < 2; v++) a[p][v] = vaddq_f32(a[p][v], vmulq_n_f32(b[v], x[r + p]));
        }
    for (p = 0; r + p < k; p++) {
        eight(w, (size_t)(r + p) * width, bytes, b);
        for (v = 0; v < 2; v++) a[p][v] = vaddq_f32(a[p][v], vmulq_n_f32(b[v], x[r + p]));
    }
    for (v = 0; v < 2; v++)
        vst1q_f32(sums + 4 * v, vaddq_f32(vaddq_f32(a[0][v], a[1][v]), vaddq_f32(a[2][v], a[3][v])));
}

/* The same for four vectors, one partial sum after the other. */
STEPRNN_INLINE void tile_neon(const void *w, const real *const *x, uint32_t k, uint32_t width, int bytes, uint32_t at,
                              float (*sums)[GROUP]) {
    float32x4_t part[4][4][2], b[2];
    uint32_t r, p, t, v;
    for (p = 0; p < 4; p++) {
        float32x4_t a[4][2];
        for (t = 0; t < 4; t++) a[t][0] = a[t][1] = vdupq_n_f32(0.0f);
        for (r = p; r < k; r += 4) {
            eight(w, (size_t)r * width, bytes, b);
            for (t = 0; t < 4; t++)
                for (v = 0; v < 2; v++) a[t][v] = vaddq_f32(a[t][v], vmulq_n_f32(b[v], x[t][r]));
        }
        for (t = 0; t < 4; t++) part[p][t][0] = a[t][0], part[p][t][1] = a[t][1];
    }
    for (t = 0; t < 4; t++)
        for (v = 0; v < 2; v++)
            vst1q_f32(sums[t] + at + 4 * v, vaddq_f32(vaddq_f32(part[0][t][v], part[1][t][v]),
                                                      vaddq_f32(part[2][t][v], part[3][t][v])));
}

STEPRNN_INLINE void panel_neon(const void *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,
                               int bytes, float (*sums)[GROUP]) {
    uint32_t at, t;
    for (at = 0; at < width; at += 8) {
        const void *here = bytes ? (const void *)((const int8_t *)w + at) : (const void *)((const float *)w + at);
        for (t = 0; t + 4 <= rows; t += 4) tile_neon(here, x + t, k, width, bytes, at, sums + t);
        for (; t < rows; t++) columns_neon(here, x[t], k, width, bytes, sums[t] + at);
    }
}

static void floats_neon(const real *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,
                        float (*sums)[GROUP]) {
    panel_neon(w, x, rows, k, width, 0, sums);
}

static void weights_neon(const int8_t *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,
                         float (*sums)[GROUP]) {
    panel_neon(w, x, rows, k, width, 1, sums);
}

/* Four r of a vector, in each of four places. */
STEPRNN_INLINE int8x16_t four_of(const int8_t *q) {
    int32_t four;
    memcpy(&four, q, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

/* A product of two 8-bit numbers fits 16 bits; neighbours are added in 32. */
static void bytes_neon(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k, uint32_t blocks,
                       const int32_t *shifts, int32_t (*sums)[GROUP]) {
    uint32_t i, r, t, v;
    (void)shifts;
    for (i = 0; i < blocks; i++)
        for (t = 0; t < rows; t++) {
            const int8_t *from = w + (size_t)16 * i * k;
            int32x4_t a[8];
            for (v = 0; v < 8; v++) a[v] = vdupq_n_s32(0);
            for (r = 0; r < k; r += 4, from += 64) {
                int8x16_t x = four_of(q[t] + r);
                for (v = 0; v < 4; v++) {
                    int8x16_t b = vld1q_s8(from + 16 * v);
                    a[2 * v] = vpadalq_s16(a[2 * v], vmull_s8(vget_low_s8(b), vget_low_s8(x)));
                    a[2 * v + 1] = vpadalq_s16(a[2 * v + 1], vmull_s8(vget_high_s8(b), vget_high_s8(x)));
                }
            }
            for (v = 0; v < 4; v++) vst1q_s32(sums[t] + 16 * i + 4 * v, vpaddq_s32(a[2 * v], a[2 * v + 1]));
        }
}

/* By its name, as not each compiler has its intrinsic for a function that asks for the instruction. */
FOR_DOT STEPRNN_INLINE int32x4_t dot(int32x4_t sum, int8x16_t a, int8x16_t b) {
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
}

/* Two blocks for one vector or one for four, so that at least eight sums run beside each other. */
FOR_DOT STEPRNN_INLINE void tile_dot(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k, uint32_t blocks,
                             uint32_t at, int32_t (*sums)[GROUP]) {
    int32x4_t a[4][2][4];
    uint32_t i, r, t, v;
    for (t = 0; t < rows; t++)
        for (i = 0; i < blocks; i++)
            for (v = 0; v < 4; v++) a[t][i][v] = vdupq_n_s32(0);
    for (r = 0; r < k; r += 4)
        for (i = 0; i < blocks; i++)
            for (v = 0; v < 4; v++) {
                int8x16_t b = vld1q_s8(w + (size_t)16 * i * k + 16 * (size_t)r + 16 * v);
                for (t = 0; t < rows; t++) a[t][i][v] = dot(a[t][i][v], b, four_of(q[t] + r));
            }
    for (t = 0; t < rows; t++)
        for (i = 0; i < blocks; i++)
            for (v = 0; v < 4; v++) vst1q_s32(sums[t] + at + 16 * i + 4 * v, a[t][i][v]);
}

FOR_DOT static void bytes_dot(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k, uint32_t blocks,
                      const int32_t *shifts, int32_t (*sums)[GROUP]) {
    uint32_t i, t;
    (void)shifts;
    for (i = 0; i < blocks; i += 2)
        for (t = 0; t < rows; t++) {
            const int8_t *here = w + (size_t)16 * i * k;
            if (t + 4 <= rows) {
                tile_dot(here, q + t, 4, k, 1, 16 * i, sums + t);
                if (i + 1 < blocks) tile_dot(here + 16 * (size_t)k, q + t, 4, k, 1, 16 * (i + 1), sums + t);
                t += 3;
            } else if (i + 1 < blocks) tile_dot(here, q + t, 1, k, 2, 16 * i, sums + t);
            else tile_dot(here, q + t, 1, k, 1, 16 * i, sums + t);
        }
}
#endif
