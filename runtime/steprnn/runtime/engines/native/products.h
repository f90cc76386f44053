/* Products of a matrix of the block and a vector: portable, and for processors that have more; the same bits.

   Each kernel gives the sums of up to 64 columns; what follows them is one piece of code for all. */
#ifndef STEPRNN_PRODUCTS_H
#define STEPRNN_PRODUCTS_H
#include "loops.h"

#if defined(__GNUC__) && defined(__x86_64__) && !defined(STEPRNN_NO_KERNELS)
#define STEPRNN_X86 1
#include <immintrin.h>
#define FOR_AVX2 __attribute__((target("avx2")))
#define FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define FOR_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#endif
#if defined(__GNUC__) && defined(__ARM_FEATURE_DOTPROD) && defined(__aarch64__) && !defined(STEPRNN_NO_KERNELS)
#define STEPRNN_DOT 1
#include <arm_neon.h>
#endif

#define GROUP 64u /* columns at a time: two panels, or four blocks of int8 */

/* The sums of `width` columns (16 or 32) of a panel: eight at a time, in four partial sums each. */
STEPRNN_INLINE void panel_float(const real *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t at, i, p, r;
    for (at = 0; at < width; at += 8) {
        float a[4][8] = {{0}};
        const real *row = w + at;
        for (r = 0; r + 4 <= k; r += 4)
            for (p = 0; p < 4; p++, row += width)
                for (i = 0; i < 8; i++) a[p][i] += x[r + p] * row[i];
        for (p = 0; r + p < k; p++, row += width)
            for (i = 0; i < 8; i++) a[p][i] += x[r + p] * row[i];
        for (i = 0; i < 8; i++) sums[at + i] = (a[0][i] + a[1][i]) + (a[2][i] + a[3][i]);
    }
}

STEPRNN_INLINE void panel_int8(const int8_t *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t at, i, p, r;
    for (at = 0; at < width; at += 8) {
        float a[4][8] = {{0}};
        const int8_t *row = w + at;
        for (r = 0; r + 4 <= k; r += 4)
            for (p = 0; p < 4; p++, row += width)
                for (i = 0; i < 8; i++) a[p][i] += x[r + p] * (float)row[i];
        for (p = 0; r + p < k; p++, row += width)
            for (i = 0; i < 8; i++) a[p][i] += x[r + p] * (float)row[i];
        for (i = 0; i < 8; i++) sums[at + i] = (a[0][i] + a[1][i]) + (a[2][i] + a[3][i]);
    }
}

/* The exact sums of 16 columns of int8 blocks. */
STEPRNN_INLINE void block_int8(const int8_t *w, const int8_t *q, uint32_t k, int32_t *sums) {
    uint32_t i, r;
    for (i = 0; i < 16; i++) sums[i] = 0;
#if defined(STEPRNN_DOT)
    {
        int32x4_t a[4];
        for (i = 0; i < 4; i++) a[i] = vdupq_n_s32(0);
        for (r = 0; r < k; r += 4, w += 64) {
            int8x16_t x = vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t *)(const void *)(q + r)));
            for (i = 0; i < 4; i++) a[i] = vdotq_s32(a[i], vld1q_s8(w + 16 * i), x);
        }
        for (i = 0; i < 4; i++) vst1q_s32(sums + 4 * i, a[i]);
    }
#else
    for (r = 0; r < k; r += 4, w += 64)
        for (i = 0; i < 16; i++)
            sums[i] += w[4 * i] * q[r] + w[4 * i + 1] * q[r + 1] + w[4 * i + 2] * q[r + 2] + w[4 * i + 3] * q[r + 3];
#endif
}

#ifdef STEPRNN_X86
FOR_AVX2 static void panel_float_avx2(const float *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t at, r, p;
    for (at = 0; at < width; at += 16) {
        const float *row = w + at;
        __m256 a[4], b[4];
        for (p = 0; p < 4; p++) a[p] = b[p] = _mm256_setzero_ps();
        for (r = 0; r + 4 <= k; r += 4)
            for (p = 0; p < 4; p++, row += width) {
                __m256 s = _mm256_set1_ps(x[r + p]);
                a[p] = _mm256_add_ps(a[p], _mm256_mul_ps(s, _mm256_loadu_ps(row)));
                b[p] = _mm256_add_ps(b[p], _mm256_mul_ps(s, _mm256_loadu_ps(row + 8)));
            }
        for (p = 0; r + p < k; p++, row += width) {
            __m256 s = _mm256_set1_ps(x[r + p]);
            a[p] = _mm256_add_ps(a[p], _mm256_mul_ps(s, _mm256_loadu_ps(row)));
            b[p] = _mm256_add_ps(b[p], _mm256_mul_ps(s, _mm256_loadu_ps(row + 8)));
        }
        _mm256_storeu_ps(sums + at, _mm256_add_ps(_mm256_add_ps(a[0], a[1]), _mm256_add_ps(a[2], a[3])));
        _mm256_storeu_ps(sums + at + 8, _mm256_add_ps(_mm256_add_ps(b[0], b[1]), _mm256_add_ps(b[2], b[3])));
    }
}

FOR_AVX2 static void panel_int8_avx2(const int8_t *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t at, r, p;
    for (at = 0; at < width; at += 8) {
        const int8_t *row = w + at;
        __m256 a[4];
        for (p = 0; p < 4; p++) a[p] = _mm256_setzero_ps();
        for (r = 0; r < k; r += 4)
            for (p = 0; p < 4 && r + p < k; p++, row += width) {
                __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)row);
                __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                a[p] = _mm256_add_ps(a[p], _mm256_mul_ps(_mm256_set1_ps(x[r + p]), v));
            }
        _mm256_storeu_ps(sums + at, _mm256_add_ps(_mm256_add_ps(a[0], a[1]), _mm256_add_ps(a[2], a[3])));
    }
}

/* |q| * (w with the sign of q): two products of at most 127 * 127 fit 16 bits. */
FOR_AVX2 static void block_int8_avx2(const int8_t *w, const int8_t *q, uint32_t k, int32_t *sums) {
    __m256i a = _mm256_setzero_si256(), b = a, ones = _mm256_set1_epi16(1);
    uint32_t r;
    for (r = 0; r < k; r += 4, w += 64) {
        int32_t four;
        __m256i x, size, l, h;
        memcpy(&four, q + r, 4);
        x = _mm256_set1_epi32(four);
        size = _mm256_abs_epi8(x);
        l = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(const void *)w), x);
        h = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(const void *)(w + 32)), x);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(size, l), ones));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_maddubs_epi16(size, h), ones));
    }
    _mm256_storeu_si256((__m256i *)(void *)sums, a);
    _mm256_storeu_si256((__m256i *)(void *)(sums + 8), b);
}

FOR_AVX512 static void panel_float_avx512(const float *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t r, p;
    __m512 a[4], b[4];
    for (p = 0; p < 4; p++) a[p] = b[p] = _mm512_setzero_ps();
    if (width == 32) {
        for (r = 0; r + 4 <= k; r += 4)
            for (p = 0; p < 4; p++, w += 32) {
                __m512 s = _mm512_set1_ps(x[r + p]);
                a[p] = _mm512_add_ps(a[p], _mm512_mul_ps(s, _mm512_loadu_ps(w)));
                b[p] = _mm512_add_ps(b[p], _mm512_mul_ps(s, _mm512_loadu_ps(w + 16)));
            }
        for (p = 0; r + p < k; p++, w += 32) {
            __m512 s = _mm512_set1_ps(x[r + p]);
            a[p] = _mm512_add_ps(a[p], _mm512_mul_ps(s, _mm512_loadu_ps(w)));
            b[p] = _mm512_add_ps(b[p], _mm512_mul_ps(s, _mm512_loadu_ps(w + 16)));
        }
        _mm512_storeu_ps(sums + 16, _mm512_add_ps(_mm512_add_ps(b[0], b[1]), _mm512_add_ps(b[2], b[3])));
    } else {
        for (r = 0; r + 4 <= k; r += 4)
            for (p = 0; p < 4; p++, w += 16)
                a[p] = _mm512_add_ps(a[p], _mm512_mul_ps(_mm512_set1_ps(x[r + p]), _mm512_loadu_ps(w)));
        for (p = 0; r + p < k; p++, w += 16)
            a[p] = _mm512_add_ps(a[p], _mm512_mul_ps(_mm512_set1_ps(x[r + p]), _mm512_loadu_ps(w)));
    }
    _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_add_ps(a[0], a[1]), _mm512_add_ps(a[2], a[3])));
}

FOR_AVX512 static void panel_int8_avx512(const int8_t *w, const real *x, uint32_t k, uint32_t width, float *sums) {
    uint32_t at, r, p;
    for (at = 0; at < width; at += 16) {
        const int8_t *row = w + at;
        __m512 a[4];
        for (p = 0; p < 4; p++) a[p] = _mm512_setzero_ps();
        for (r = 0; r < k; r += 4)
            for (p = 0; p < 4 && r + p < k; p++, row += width) {
                __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)row);
                __m512 v = _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
                a[p] = _mm512_add_ps(a[p], _mm512_mul_ps(_mm512_set1_ps(x[r + p]), v));
            }
        _mm512_storeu_ps(sums + at, _mm512_add_ps(_mm512_add_ps(a[0], a[1]), _mm512_add_ps(a[2], a[3])));
    }
}

/* VPDPBUSD takes unsigned activations: u is q + 128. What that adds, 128 times the column's sum, is taken off. */
#define VNNI_STEP(sum, x, weights, at) sum = _mm512_dpbusd_epi32(sum, x, _mm512_loadu_si512((weights) + (at)))
FOR_VNNI static void blocks_int8_vnni(const int8_t *w, const int8_t *u, uint32_t k, uint32_t blocks, int32_t *sums,
                                      const int32_t *shifts) {
    const size_t next = 16 * (size_t)k;
    const int8_t *w1 = w + next, *w2 = w1 + next, *w3 = w2 + next;
    __m512i z = _mm512_setzero_si512(), a0 = z, a1 = z, a2 = z, a3 = z, b0 = z, b1 = z, b2 = z, b3 = z;
    const whole *fours = (const whole *)(const void *)u;
    uint32_t r = 0, i;
    if (blocks == 4) {
        for (; r + 8 <= k; r += 8) {
            __m512i x = _mm512_set1_epi32(fours[r / 4]), y = _mm512_set1_epi32(fours[r / 4 + 1]);
            size_t at = 16 * (size_t)r;
            VNNI_STEP(a0, x, w, at), VNNI_STEP(b0, y, w, at + 64);
            VNNI_STEP(a1, x, w1, at), VNNI_STEP(b1, y, w1, at + 64);
            VNNI_STEP(a2, x, w2, at), VNNI_STEP(b2, y, w2, at + 64);
            VNNI_STEP(a3, x, w3, at), VNNI_STEP(b3, y, w3, at + 64);
        }
        if (r < k) {
            __m512i x = _mm512_set1_epi32(fours[r / 4]);
            size_t at = 16 * (size_t)r;
            VNNI_STEP(a0, x, w, at), VNNI_STEP(a1, x, w1, at), VNNI_STEP(a2, x, w2, at), VNNI_STEP(a3, x, w3, at);
        }
        a0 = _mm512_add_epi32(a0, b0), a1 = _mm512_add_epi32(a1, b1);
        a2 = _mm512_add_epi32(a2, b2), a3 = _mm512_add_epi32(a3, b3);
        _mm512_storeu_si512(sums, _mm512_sub_epi32(a0, _mm512_loadu_si512(shifts)));
        _mm512_storeu_si512(sums + 16, _mm512_sub_epi32(a1, _mm512_loadu_si512(shifts + 16)));
        _mm512_storeu_si512(sums + 32, _mm512_sub_epi32(a2, _mm512_loadu_si512(shifts + 32)));
        _mm512_storeu_si512(sums + 48, _mm512_sub_epi32(a3, _mm512_loadu_si512(shifts + 48)));
        return;
    }
    for (i = 0; i < blocks; i++, w += next) {
        for (r = 0, a0 = b0 = z; r + 8 <= k; r += 8) {
            VNNI_STEP(a0, _mm512_set1_epi32(fours[r / 4]), w, 16 * (size_t)r);
            VNNI_STEP(b0, _mm512_set1_epi32(fours[r / 4 + 1]), w, 16 * (size_t)r + 64);
        }
        if (r < k) VNNI_STEP(a0, _mm512_set1_epi32(fours[r / 4]), w, 16 * (size_t)r);
        a0 = _mm512_sub_epi32(_mm512_add_epi32(a0, b0), _mm512_loadu_si512(shifts + 16 * i));
        _mm512_storeu_si512(sums + 16 * i, a0);
    }
}
#endif

/* x rounded to 8 bits, k of them and zeros up to a multiple of 4; returns what 1 stands for. */
STEPRNN_INLINE float round_to_int8(const real *x, int8_t *q, uint32_t k) {
    float m = 0.0f, lanes[16] = {0}, t;
    uint32_t i, j;
    for (i = 0; i + 16 <= k; i += 16)
        for (j = 0; j < 16; j++) {
            float a = absolute(x[i + j]), b = a > lanes[j] ? a : lanes[j];
            lanes[j] = a != a ? a : b;
        }
    for (; i < k; i++) m = larger(m, absolute(x[i]));
    for (j = 0; j < 16; j++) m = larger(m, lanes[j]);
    for (i = k; i < up_to(k, 4); i++) q[i] = 0;
    t = 127.0f / m;
    if (!(m <= 3.40282347e38f) || !(t <= 3.40282347e38f)) { /* no number, or nearly 0 */
        memset(q, 0, k);
        return m <= 1.0f ? 1.0f : m * 0.0f;
    }
    for (i = 0; i < k; i++) q[i] = (int8_t)(uint8_t)bits_of(x[i] * t + 12582912.0f);
    return m / 127.0f;
}

/* The sums of up to GROUP columns that begin at `column`. */
STEPRNN_INLINE void group_sums(const memory *m, const uint32_t *op, const real *x, const int8_t *q, float unit,
                               uint32_t column, float *sums) {
    uint32_t type = op[1] & 255, k = op[P_K], wide = up_to(op[P_N], 16), i, j, width;
    const real *scales = (const real *)(m->block + op[P_SCALES]);
    if (type == PRODUCT_INT8) {
        uint32_t deep = up_to(k, 4), blocks = (wide - column) / 16;
        const int8_t *w = (const int8_t *)(m->block + op[P_WEIGHTS]) + (size_t)column * deep;
        int32_t exact[GROUP];
        blocks = blocks < 4 ? blocks : 4;
#ifdef STEPRNN_X86
        if (m->kernels >= STEPRNN_VNNI) {
            const int32_t *shifts = (const int32_t *)(const void *)(m->block + op[P_SCALES] + wide) + column;
            blocks_int8_vnni(w, q, deep, blocks, exact, shifts);
        } else if (m->kernels >= STEPRNN_AVX2) {
            for (i = 0; i < blocks; i++) block_int8_avx2(w + (size_t)16 * i * deep, q, deep, exact + 16 * i);
        } else
#endif
            for (i = 0; i < blocks; i++) block_int8(w + (size_t)16 * i * deep, q, deep, exact + 16 * i);
        for (i = 0; i < 16 * blocks; i++) sums[i] = (float)exact[i] * (unit * scales[column + i]);
        return;
    }
    for (i = column; i < wide && i < column + GROUP; i += width) {
        width = wide - i >= 32 ? 32 : 16;
        if (type == PRODUCT_FLOAT) {
            const real *w = (const real *)(m->block + op[P_WEIGHTS]) + (size_t)i * k;
#ifdef STEPRNN_X86
            if (m->kernels >= STEPRNN_AVX512) panel_float_avx512((const float *)w, x, k, width, sums + i - column);
            else if (m->kernels >= STEPRNN_AVX2) panel_float_avx2((const float *)w, x, k, width, sums + i - column);
            else
#endif
                panel_float(w, x, k, width, sums + i - column);
        } else {
            const int8_t *w = (const int8_t *)(m->block + op[P_WEIGHTS]) + (size_t)i * k;
#ifdef STEPRNN_X86
            if (m->kernels >= STEPRNN_AVX512) panel_int8_avx512(w, x, k, width, sums + i - column);
            else if (m->kernels >= STEPRNN_AVX2) panel_int8_avx2(w, x, k, width, sums + i - column);
            else
#endif
                panel_int8(w, x, k, width, sums + i - column);
            for (j = i; j < i + width; j++) sums[j - column] = sums[j - column] * scales[j];
        }
    }
}

STEPRNN_INLINE void run_product(const memory *m, const uint32_t *op) {
    uint32_t type = op[1] & 255, a = op[1] >> 8 & 255, b = op[1] >> 16 & 255, addends = op[1] >> 24;
    uint32_t k = op[P_K], n = op[P_N], column, i, j, index[MOST_INNER] = {0}, k_index[MOST_INNER];
    const uint32_t *ks = op + P_REST + addends, *bs = ks + 2 * a;
    const uint32_t *strides[2], *k_strides[1];
    const uint32_t *x_at = read_at(m, op[P_X]);
    uint32_t *y_at = m->arena + (op[P_Y] & IN_BLOCK);
    int64_t at[2] = {0}, y_stride = (int32_t)op[P_Y_STRIDE];
    real *gathered = (real *)m->scratch, unit = 1.0f;
    int8_t *q = (int8_t *)(gathered + up_to(k, 16));
    strides[0] = bs + b;
    strides[1] = bs + 2 * b;
    k_strides[0] = ks + a;
    do {
        uint32_t last = ks[a - 1], done;
        int64_t from = at[0], by = (int32_t)k_strides[0][a - 1];
        for (i = 0; i < a; i++) k_index[i] = 0;
        for (done = 0; done < k; done += last) { /* one innermost loop at a time */
            load((steprnn_word *)(void *)gathered + done, x_at + from, by, last);
            advance(k_index, ks, a - 1, k_strides, &from, 1);
        }
        if (type == PRODUCT_INT8) {
            unit = round_to_int8(gathered, q, k);
            if (m->kernels >= STEPRNN_VNNI)
                for (i = 0; i < up_to(k, 4); i++) q[i] = (int8_t)(uint8_t)((uint8_t)q[i] ^ 0x80u);
        }
        for (column = 0; column < n; column += GROUP) {
            float sums[GROUP], added[GROUP];
            uint32_t count = n - column < GROUP ? n - column : GROUP;
            group_sums(m, op, gathered, q, unit, column, sums);
            for (j = 0; j < addends; j++) {
                memcpy(added, read_at(m, op[P_REST + j]) + column, 4 * (size_t)count);
                for (i = 0; i < count; i++) sums[i] = sums[i] + added[i];
            }
            if (y_stride == 1) memcpy(y_at + at[1] + column, sums, 4 * (size_t)count);
            else
                for (i = 0; i < count; i++) y_at[at[1] + y_stride * (int64_t)(column + i)] = bits_of(sums[i]);
        }
    } while (advance(index, bs, b, strides, at, 2));
}
#endif
