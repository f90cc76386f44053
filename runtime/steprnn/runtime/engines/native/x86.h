/* Kernels for x86-64 beyond what each of them has: AVX2, AVX-VNNI, AVX-512, AVX-512 VNNI. */
#ifndef STEPRNN_X86_H
#define STEPRNN_X86_H
#include "loops.h"
#include <cpuid.h>
#include <immintrin.h>
#define FOR_AVX2 __attribute__((target("avx2")))
#if defined(__clang__)
#define WHOLE_WIDTH "avx512f,avx512bw,avx512vl,avx512dq"
#else
#define WHOLE_WIDTH "avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512" /* else gcc takes halves */
#endif
#define FOR_AVX512 __attribute__((target(WHOLE_WIDTH)))
#define FOR_VNNI __attribute__((target(WHOLE_WIDTH ",avx512vnni")))
#define UNROLL _Pragma("GCC unroll 8")

/* The fastest kernels of this processor, whose registers the system keeps. */
static int best_kernels(void) {
    uint32_t a, b, c, d, kept, high;
    __cpuid_count(1, 0, a, b, c, d);
    if (!(c >> 27 & 1) || __get_cpuid_max(0, NULL) < 7) return STEPRNN_PORTABLE; /* OSXSAVE */
    __asm__("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    __cpuid_count(7, 0, a, b, c, d);
    if ((kept & 6) != 6 || !(b >> 5 & 1)) return STEPRNN_PORTABLE;                    /* AVX2 */
    if ((kept & 0xe0) == 0xe0 && (b >> 16 & 3) == 3 && (b >> 30 & 3) == 3)            /* F, DQ, BW, VL */
        return c >> 11 & 1 ? STEPRNN_VNNI : STEPRNN_AVX512;
    if (a < 1) return STEPRNN_AVX2;
    __cpuid_count(7, 1, a, b, c, d);
    return a >> 4 & 1 ? STEPRNN_AVX_VNNI : STEPRNN_AVX2;
}

/* Eight columns of a row of a panel, float32 or int8. */
FOR_AVX2 STEPRNN_INLINE __m256 eight(const void *panel, size_t at, int bytes) {
    if (!bytes) return _mm256_loadu_ps((const float *)panel + at);
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)((const int8_t *)panel + at))));
}

/* 16 columns of a panel for one vector, in four partial sums. */
FOR_AVX2 STEPRNN_INLINE void columns_avx2(const void *w, const real *x, uint32_t k, uint32_t width, int bytes,
                                          float *sums) {
    __m256 a[4], b[4];
    uint32_t r, p;
    for (p = 0; p < 4; p++) a[p] = b[p] = _mm256_setzero_ps();
    for (r = 0; r + 4 <= k; r += 4)
        UNROLL for (p = 0; p < 4; p++) {
            __m256 s = _mm256_set1_ps(x[r + p]);
            size_t at = (size_t)(r + p) * width;
            a[p] = _mm256_add_ps(a[p], _mm256_mul_ps(s, eight(w, at, bytes)));
            b[p] = _mm256_add_ps(b[p], _mm256_mul_ps(s, eight(w, at + 8, bytes)));
        }
    for (p = 0; r + p < k; p++) {
        __m256 s = _mm256_set1_ps(x[r + p]);
        size_t at = (size_t)(r + p) * width;
        a[p] = _mm256_add_ps(a[p], _mm256_mul_ps(s, eight(w, at, bytes)));
        b[p] = _mm256_add_ps(b[p], _mm256_mul_ps(s, eight(w, at + 8, bytes)));
    }
    _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_add_ps(a[0], a[1]), _mm256_add_ps(a[2], a[3])));
    _mm256_storeu_ps(sums + 8, _mm256_add_ps(_mm256_add_ps(b[0], b[1]), _mm256_add_ps(b[2], b[3])));
}

/* The same for four vectors, one partial sum after the other, so that all fit the registers. */
FOR_AVX2 STEPRNN_INLINE void tile_avx2(const void *w, const real *const *x, uint32_t k, uint32_t width, int bytes,
                                       uint32_t at, float (*sums)[GROUP]) {
    __m256 part[4][4][2];
    uint32_t r, p, t;
    for (p = 0; p < 4; p++) {
        __m256 a[4], b[4];
        UNROLL for (t = 0; t < 4; t++) a[t] = b[t] = _mm256_setzero_ps();
        for (r = p; r < k; r += 4) {
            __m256 c = eight(w, (size_t)r * width, bytes), d = eight(w, (size_t)r * width + 8, bytes);
            UNROLL for (t = 0; t < 4; t++) {
                __m256 s = _mm256_set1_ps(x[t][r]);
                a[t] = _mm256_add_ps(a[t], _mm256_mul_ps(s, c));
                b[t] = _mm256_add_ps(b[t], _mm256_mul_ps(s, d));
            }
        }
        for (t = 0; t < 4; t++) part[p][t][0] = a[t], part[p][t][1] = b[t];
    }
    for (t = 0; t < 4; t++)
        for (r = 0; r < 2; r++)
            _mm256_storeu_ps(sums[t] + at + 8 * r, _mm256_add_ps(_mm256_add_ps(part[0][t][r], part[1][t][r]),
                                                                 _mm256_add_ps(part[2][t][r], part[3][t][r])));
}

FOR_AVX2 STEPRNN_INLINE void panel_avx2(const void *w, const real *const *x, uint32_t rows, uint32_t k,
                                        uint32_t width, int bytes, float (*sums)[GROUP]) {
    uint32_t at, t;
    for (at = 0; at < width; at += 16) {
        const void *here = bytes ? (const void *)((const int8_t *)w + at) : (const void *)((const float *)w + at);
        for (t = 0; t + 4 <= rows; t += 4) tile_avx2(here, x + t, k, width, bytes, at, sums + t);
        for (; t < rows; t++) columns_avx2(here, x[t], k, width, bytes, sums[t] + at);
    }
}

FOR_AVX2 static void floats_avx2(const real *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,
                                 float (*sums)[GROUP]) {
    panel_avx2(w, x, rows, k, width, 0, sums);
}

FOR_AVX2 static void weights_avx2(const int8_t *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,
                                  float (*sums)[GROUP]) {
    panel_avx2(w, x, rows, k, width, 1, sums);
}

/* |q| * (w with the sign of q): two products of at most 127 * 127 fit 16 bits. */
FOR_AVX2 static void bytes_avx2(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k, uint32_t blocks,
                                const int32_t *shifts, int32_t (*sums)[GROUP]) {
    __m256i ones = _mm256_set1_epi16(1);
    uint32_t i, r, t;
    (void)shifts;
    for (i = 0; i < blocks; i++)
        for (t = 0; t < rows; t++) {
            __m256i a = _mm256_setzero_si256(), b = a;
            const whole *fours = (const whole *)(const void *)q[t];
            const int8_t *from = w + (size_t)16 * i * k;
            for (r = 0; r < k; r += 4, from += 64) {
                __m256i x = _mm256_set1_epi32(fours[r / 4]), size = _mm256_abs_epi8(x);
                __m256i l = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(const void *)from), x);
                __m256i h = _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(const void *)(from + 32)), x);
                a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_maddubs_epi16(size, l), ones));
                b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_maddubs_epi16(size, h), ones));
            }
            _mm256_storeu_si256((__m256i *)(void *)(sums[t] + 16 * i), a);
            _mm256_storeu_si256((__m256i *)(void *)(sums[t] + 16 * i + 8), b);
        }
}

/* VPDPBUSD takes unsigned activations: q + 128. What that adds, 128 times the column's sum, is taken off. Of
   256 bits it is in AVX-VNNI and, encoded differently, in AVX-512. */
#define BYTES_VNNI_256(name, features, product)                                                                 \
    __attribute__((target(features))) static void name(const int8_t *w, const int8_t *const *q, uint32_t rows,  \
                                                       uint32_t k, uint32_t blocks, const int32_t *shifts,      \
                                                       int32_t (*sums)[GROUP]) {                                \
        uint32_t i, r, t, v;                                                                                    \
        for (i = 0; i < blocks; i += 2)                                                                         \
            for (t = 0; t < rows; t++) {                                                                        \
                const whole *fours = (const whole *)(const void *)q[t];                                         \
                const int8_t *from = w + (size_t)16 * i * k, *next = i + 1 < blocks ? from + 16 * (size_t)k : from; \
                __m256i a[4], b[4];                                                                             \
                UNROLL for (v = 0; v < 4; v++) a[v] = b[v] = _mm256_setzero_si256();                            \
                for (r = 0; r + 8 <= k; r += 8) {                                                               \
                    __m256i x = _mm256_set1_epi32(fours[r / 4]), y = _mm256_set1_epi32(fours[r / 4 + 1]);       \
                    UNROLL for (v = 0; v < 4; v++) {                                                            \
                        const int8_t *at = (v < 2 ? from : next) + 16 * (size_t)r + 32 * (v & 1);               \
                        a[v] = product(a[v], x, _mm256_loadu_si256((const __m256i *)(const void *)at));         \
                        b[v] = product(b[v], y, _mm256_loadu_si256((const __m256i *)(const void *)(at + 64)));  \
                    }                                                                                           \
                }                                                                                               \
                if (r < k)                                                                                      \
                    for (v = 0; v < 4; v++) {                                                                   \
                        const int8_t *at = (v < 2 ? from : next) + 16 * (size_t)r + 32 * (v & 1);               \
                        a[v] = product(a[v], _mm256_set1_epi32(fours[r / 4]),                                   \
                                       _mm256_loadu_si256((const __m256i *)(const void *)at));                  \
                    }                                                                                           \
                for (v = 0; v < (i + 1 < blocks ? 4u : 2u); v++) {                                              \
                    __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(shifts + 16 * i + 8 * v));   \
                    s = _mm256_sub_epi32(_mm256_add_epi32(a[v], b[v]), s);                                      \
                    _mm256_storeu_si256((__m256i *)(void *)(sums[t] + 16 * i + 8 * v), s);                      \
                }                                                                                               \
            }                                                                                                   \
    }
BYTES_VNNI_256(bytes_avx_vnni, "avx2,avxvnni", _mm256_dpbusd_avx_epi32)
BYTES_VNNI_256(bytes_vnni_256, "avx2,avx512f,avx512vl,avx512vnni", _mm256_dpbusd_epi32)

FOR_AVX512 STEPRNN_INLINE __m512 sixteen(const void *panel, size_t at, int bytes) {
    if (!bytes) return _mm512_loadu_ps((const float *)panel + at);
    return _mm512_maskz_cvtepi32_ps(
        0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128((const __m128i *)(const void *)((const int8_t *)panel + at))));
}

/* b times a number in memory. Of a number that two products share compilers make a register of its own, for which
   Zen 4 gives up an addition; read by the product itself it costs nothing. */
FOR_AVX512 STEPRNN_INLINE __m512 times(__m512 b, const real *x) {
    __m512 y;
    __asm__("vmulps %2%{1to16%}, %1, %0" : "=v"(y) : "v"(b), "m"(*x));
    return y;
}

/* Element r of some vectors times its row of a panel, for some 16s of columns from `at`, to the partial sums p. */
FOR_AVX512 STEPRNN_INLINE void row_avx512(__m512 (*a)[2][4], uint32_t p, const void *w, size_t at, int bytes,
                                          const real *const *x, uint32_t r, uint32_t rows, uint32_t vectors) {
    __m512 b[2];
    uint32_t t, v;
    UNROLL for (v = 0; v < vectors; v++) b[v] = sixteen(w, at + 16 * v, bytes);
    UNROLL for (t = 0; t < rows; t++)
        UNROLL for (v = 0; v < vectors; v++) a[t][v][p] = _mm512_add_ps(a[t][v][p], times(b[v], x[t] + r));
}

/* Some 16s of columns of a panel for some vectors, at most four sums, each in four partial sums. */
FOR_AVX512 STEPRNN_INLINE void tile_avx512(const void *w, const real *const *x, uint32_t rows, uint32_t k,
                                           uint32_t width, uint32_t vectors, int bytes, size_t at,
                                           float (*sums)[GROUP]) {
    __m512 a[4][2][4];
    uint32_t r, p, t, v;
    UNROLL for (t = 0; t < rows; t++)
        UNROLL for (v = 0; v < vectors; v++)
            UNROLL for (p = 0; p < 4; p++) a[t][v][p] = _mm512_setzero_ps();
    for (r = 0; r + 4 <= k; r += 4)
        UNROLL for (p = 0; p < 4; p++) row_avx512(a, p, w, (size_t)(r + p) * width + at, bytes, x, r + p, rows, vectors);
    UNROLL for (p = 0; p < 3; p++)
        if (r + p < k) row_avx512(a, p, w, (size_t)(r + p) * width + at, bytes, x, r + p, rows, vectors);
    UNROLL for (t = 0; t < rows; t++)
        UNROLL for (v = 0; v < vectors; v++)
            _mm512_storeu_ps(sums[t] + at + 16 * v, _mm512_add_ps(_mm512_add_ps(a[t][v][0], a[t][v][1]),
                                                                  _mm512_add_ps(a[t][v][2], a[t][v][3])));
}

FOR_AVX512 STEPRNN_INLINE void panel_avx512(const void *w, const real *const *x, uint32_t rows, uint32_t k,
                                            uint32_t width, int bytes, float (*sums)[GROUP]) {
    uint32_t t, at;
    for (at = 0; at < width; at += 16)
        for (t = 0; t + 4 <= rows; t += 4) tile_avx512(w, x + t, 4, k, width, 1, bytes, at, sums + t);
    for (t = rows & ~3u; t < rows; t++) {
        if (width == 32) tile_avx512(w, x + t, 1, k, 32, 2, bytes, 0, sums + t);
        else tile_avx512(w, x + t, 1, k, 16, 1, bytes, 0, sums + t);
    }
}

FOR_AVX512 static void floats_avx512(const real *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,
                                     float (*sums)[GROUP]) {
    panel_avx512(w, x, rows, k, width, 0, sums);
}

FOR_AVX512 static void weights_avx512(const int8_t *w, const real *const *x, uint32_t rows, uint32_t k,
                                      uint32_t width, float (*sums)[GROUP]) {
    panel_avx512(w, x, rows, k, width, 1, sums);
}

/* Some blocks, of which the first is `at`, for some vectors. */
FOR_VNNI STEPRNN_INLINE void tile_vnni(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k,
                                       uint32_t blocks, uint32_t at, const int32_t *shifts,
                                       int32_t (*sums)[GROUP]) {
    const size_t next = 16 * (size_t)k;
    __m512i a[4][4];
    uint32_t i, r, t;
    UNROLL for (t = 0; t < rows; t++)
        UNROLL for (i = 0; i < blocks; i++) a[t][i] = _mm512_setzero_si512();
    for (r = 0; r < k; r += 4) {
        __m512i b[4];
        UNROLL for (i = 0; i < blocks; i++) b[i] = _mm512_loadu_si512(w + 16 * (size_t)r + i * next);
        UNROLL for (t = 0; t < rows; t++) {
            __m512i x = _mm512_set1_epi32(((const whole *)(const void *)q[t])[r / 4]);
            UNROLL for (i = 0; i < blocks; i++) a[t][i] = _mm512_dpbusd_epi32(a[t][i], x, b[i]);
        }
    }
    UNROLL for (t = 0; t < rows; t++)
        UNROLL for (i = 0; i < blocks; i++)
            _mm512_storeu_si512(sums[t] + 16 * (at + i),
                                _mm512_sub_epi32(a[t][i], _mm512_loadu_si512(shifts + 16 * (at + i))));
}

/* One block for one vector, in four sums: read in a row, as memory beyond the second cache is the faster so. */
FOR_VNNI STEPRNN_INLINE void one_vnni(const int8_t *w, const int8_t *q, uint32_t k, const int32_t *shifts,
                                      int32_t *sums) {
    const whole *x = (const whole *)(const void *)q;
    __m512i a[4];
    uint32_t r, p;
    UNROLL for (p = 0; p < 4; p++) a[p] = _mm512_setzero_si512();
    for (r = 0; r + 16 <= k; r += 16, x += 4)
        UNROLL for (p = 0; p < 4; p++, w += 64)
            a[p] = _mm512_dpbusd_epi32(a[p], _mm512_set1_epi32(x[p]), _mm512_loadu_si512(w));
    for (; r < k; r += 4, x++, w += 64)
        a[0] = _mm512_dpbusd_epi32(a[0], _mm512_set1_epi32(*x), _mm512_loadu_si512(w));
    a[0] = _mm512_add_epi32(_mm512_add_epi32(a[0], a[1]), _mm512_add_epi32(a[2], a[3]));
    _mm512_storeu_si512(sums, _mm512_sub_epi32(a[0], _mm512_loadu_si512(shifts)));
}

/* Vectors together, four blocks at a time. */
FOR_VNNI STEPRNN_INLINE void blocks_vnni(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k,
                                         uint32_t blocks, const int32_t *shifts, int32_t (*sums)[GROUP]) {
    const size_t next = 16 * (size_t)k;
    uint32_t i = 0;
    for (; i + 4 <= blocks; i += 4) tile_vnni(w + i * next, q, rows, k, 4, i, shifts, sums);
    for (; i < blocks; i++) tile_vnni(w + i * next, q, rows, k, 1, i, shifts, sums);
}

FOR_VNNI static void bytes_vnni(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k, uint32_t blocks,
                                const int32_t *shifts, int32_t (*sums)[GROUP]) {
    uint32_t t = 0, i;
    for (; t + 4 <= rows; t += 4) blocks_vnni(w, q + t, 4, k, blocks, shifts, sums + t);
    for (; t + 2 <= rows; t += 2) blocks_vnni(w, q + t, 2, k, blocks, shifts, sums + t);
    for (; t < rows; t++)
        for (i = 0; i < blocks; i++) one_vnni(w + (size_t)16 * i * k, q[t], k, shifts + 16 * i, sums[t] + 16 * i);
}
#endif
