/* Products, LSTM and GRU where one number is computed at a time and the stack is small: the bits of products.h. */
#ifndef STEPRNN_SMALL_H
#define STEPRNN_SMALL_H
#include "fixed.h"
#include "loops.h"
#if defined(__GNUC__) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && !defined(STEPRNN_NO_KERNELS)
#include "cortex.h"
#endif

typedef struct steprnn_kernels {
    int none; /* there is no choice of kernels */
} kernels;
static const kernels *kernels_of(int level) {
    (void)level;
    return NULL;
}
static int best_kernels(void) { return STEPRNN_PORTABLE; }

#if defined(STEPRNN_PAIRS)
typedef int16_t rounded;
#define PLACE(i) (((i) & ~3u) | ((i) & 1) << 1 | ((i) >> 1 & 1))
#else
typedef int8_t rounded;
#define PLACE(i) (i)
#endif
/* x rounded to 8 bits, k of them and zeros up to a multiple of 4; returns what 1 stands for. The largest |x| is found
   by its bits, which are in the order of the numbers, NaN last. */
STEPRNN_INLINE float round_to_int8(const real *x, rounded *q, uint32_t k) {
    uint32_t most = 0, i;
    float m, t;
    for (i = 0; i < k; i++) {
        uint32_t a = bits_of(x[i]) & 0x7fffffffu;
        most = a > most ? a : most;
    }
    m = float_of(most);
    t = 127.0f / m;
    if (most > 0x7f7fffffu || (bits_of(t) & 0x7fffffffu) > 0x7f7fffffu) { /* no number, or nearly 0 */
        memset(q, 0, up_to(k, 4) * sizeof *q);
        return most > 0x7f7fffffu ? m * 0.0f : 1.0f;
    }
    for (i = 0; i + 4 <= k; i += 4, q += 4) { /* reads four before it writes, as pairs may lie where x does */
        float a = x[i] * t + 12582912.0f, b = x[i + 1] * t + 12582912.0f, c = x[i + 2] * t + 12582912.0f;
        float d = x[i + 3] * t + 12582912.0f;
        q[PLACE(0)] = (int8_t)(uint8_t)bits_of(a);
        q[PLACE(1)] = (int8_t)(uint8_t)bits_of(b);
        q[PLACE(2)] = (int8_t)(uint8_t)bits_of(c);
        q[PLACE(3)] = (int8_t)(uint8_t)bits_of(d);
    }
    if (i < k) {
        rounded last[4] = {0, 0, 0, 0};
        for (most = 0; i + most < k; most++) last[PLACE(most)] = (int8_t)(uint8_t)bits_of(x[i + most] * t + 12582912.0f);
        memcpy(q, last, sizeof last);
    }
    return m / 127.0f;
}

/* The sums of `width` columns (16 or 32) of a panel, of which `kept` are wanted, up to 8 at a time. */
#define PANEL(name, type)                                                                                             \
    STEPRNN_INLINE void name(const type *w, const real *x, uint32_t k, uint32_t width, uint32_t kept, float *sums) {  \
        uint32_t at, i, p, r, some;                                                                                   \
        for (at = 0; at < kept; at += some) {                                                                         \
            float a[4][8] = {{0}};                                                                                    \
            const type *row = w + at;                                                                                 \
            some = kept - at < 8 ? kept - at : 8;                                                                     \
            for (r = 0; r < k; r++, row += width) {                                                                   \
                float *part = a[r % 4], by = x[r];                                                                    \
                for (i = 0; i < some; i++) part[i] += by * (float)row[i];                                             \
            }                                                                                                         \
            for (i = 0, p = at; i < some; i++, p++) sums[p] = (a[0][i] + a[1][i]) + (a[2][i] + a[3][i]);              \
        }                                                                                                             \
    }
PANEL(panel_of_floats, real)
PANEL(panel_of_bytes, int8_t)

#if defined(__GNUC__)
#define ALONE __attribute__((noinline, unused))
#else
#define ALONE
#endif
#ifndef BYTES
#define BYTES bytes_small
/* The exact sums of blocks of 16 columns, of eight at a time, for which x is read once. It is a function of its own so
   that they stay in registers. */
ALONE static void bytes_small(const int8_t *w, const int8_t *q, uint32_t k, uint32_t blocks, int32_t *sums) {
    const int8_t *end = q + k;
    uint32_t i;
    for (i = 0; i < 2 * blocks; i++, sums += 8) {
        const int8_t *x = q, *at = w + 16 * (size_t)k * (i / 2) + 32 * (i % 2);
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0, by;
#define ROW(r)                                                                                                        \
    by = x[r], s0 += by * at[r], s1 += by * at[4 + r], s2 += by * at[8 + r], s3 += by * at[12 + r],                   \
    s4 += by * at[16 + r], s5 += by * at[20 + r], s6 += by * at[24 + r], s7 += by * at[28 + r]
        for (; x != end; x += 4, at += 64) ROW(0), ROW(1), ROW(2), ROW(3);
#undef ROW
        sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3, sums[4] = s4, sums[5] = s5, sums[6] = s6, sums[7] = s7;
    }
}
#endif

#define EACH_SUM(sum)                                                                                                 \
    {                                                                                                                 \
        if (addends == 0)                                                                                             \
            for (i = 0; i < count; i++) y[i] = (sum);                                                                 \
        else if (addends == 1)                                                                                        \
            for (i = 0; i < count; i++) y[i] = (sum) + a[i];                                                          \
        else                                                                                                          \
            for (i = 0; i < count; i++) y[i] = ((sum) + a[i]) + b[i];                                                 \
    }

/* What sums become in y, of `count` columns from `column` on: exact sums take a unit, int8 weights a scale. */
STEPRNN_INLINE void finish(const memory *m, const uint32_t *op, uint32_t column, uint32_t count, const void *sums,
                           float unit, uint32_t *to) {
    uint32_t addends = op[1] >> 24, type = op[1] & 255, i;
    int64_t stride = (int32_t)op[P_Y_STRIDE];
    const real *scales = (const real *)(m->block + op[P_SCALES]) + column, *s = (const real *)sums;
    const real *a = addends > 0 ? (const real *)read_at(m, op[P_REST]) + column : NULL;
    const real *b = addends > 1 ? (const real *)read_at(m, op[P_REST + 1]) + column : NULL;
    const whole *exact = (const whole *)sums;
    real row[32], *y = stride == 1 ? (real *)to + column : row;
    if (HAS_TYPE(PRODUCT_FLOAT) && type == PRODUCT_FLOAT) EACH_SUM(s[i])
    if (HAS_TYPE(PRODUCT_INT8) && type == PRODUCT_INT8) EACH_SUM((float)exact[i] * (unit * scales[i]))
    if (HAS_TYPE(PRODUCT_INT8_WEIGHTS) && type == PRODUCT_INT8_WEIGHTS) EACH_SUM(s[i] * scales[i])
    if (stride != 1)
        for (i = 0; i < count; i++) to[stride * (int64_t)(column + i)] = bits_of(row[i]);
}
#undef EACH_SUM

#define HAS_EXACT (HAS_TYPE(PRODUCT_INT8) || HAS_TYPE(PRODUCT_INT8_FIXED))
/* The product for one stream. */
STEPRNN_INLINE void product_of(memory *m, const uint32_t *op) {
    uint32_t b = op[1] >> 16 & 255, type = op[1] & 255, k = op[P_K], n = op[P_N], index[MOST_INNER] = {0}, column;
    const uint32_t *bs = op + P_REST + (op[1] >> 24) + 2 * (op[1] >> 8 & 255), *strides[2];
    const uint32_t *weights = m->block + op[P_WEIGHTS];
    int64_t at[2] = {0};
    strides[0] = bs + b;
    strides[1] = bs + 2 * b;
    do {
        const real *x = take_x(m, op, at[0]);
        uint32_t *y = m->arena + (op[P_Y] & IN_BLOCK) + at[1], width;
        float unit = 1.0f;
#if defined(STEPRNN_PAIRS)
        rounded *q = (rounded *)m->scratch; /* of which each pair is written when it was read */
#else
        rounded *q = (rounded *)m->scratch + 4 * (size_t)up_to(k, 16);
#endif
        if (HAS_EXACT && is_exact(type)) unit = round_to_int8(x, q, k);
        for (column = 0; column < n; column += width) {
            uint32_t wide = up_to(n, 16) - column, kept = n - column;
            union {
                int32_t whole[32];
                float part[32];
            } sums;
            width = wide >= 32 ? 32 : 16;
            kept = kept < width ? kept : width;
            if (HAS_EXACT && is_exact(type))
                BYTES((const int8_t *)weights + (size_t)column * up_to(k, 4), (const int8_t *)q, up_to(k, 4), width / 16,
                      sums.whole);
            else if (HAS_TYPE(PRODUCT_INT8_WEIGHTS) && type == PRODUCT_INT8_WEIGHTS)
                panel_of_bytes((const int8_t *)weights + (size_t)column * k, x, k, width, kept, sums.part);
#if defined(FLOATS)
            else if (kept > 4) FLOATS((const real *)weights + (size_t)column * k, x, k, width, sums.part);
#endif
            else panel_of_floats((const real *)weights + (size_t)column * k, x, k, width, kept, sums.part);
            if (HAS_TYPE(PRODUCT_INT8_FIXED) && type == PRODUCT_INT8_FIXED)
                finish_fixed(m, op, column, kept, sums.whole, unit, y);
            else finish(m, op, column, kept, &sums, unit, y);
        }
    } while (advance(index, bs, b, strides, at, 2));
}

STEPRNN_INLINE void run_product(memory *m, const uint32_t *op) {
    size_t i;
    for (i = 0; i < m->count; i++) {
        enter(m, i);
        product_of(m, op);
    }
}

STEPRNN_INLINE void small_lstm(const memory *m, const uint32_t *op) {
    const real *in[5];
    real *next_c = (real *)m->arena + (op[7] & IN_BLOCK), *next_h = (real *)m->arena + (op[8] & IN_BLOCK);
    uint32_t i;
    for (i = 0; i < 5; i++) in[i] = (const real *)read_at(m, op[2 + i]);
    for (i = 0; i < op[1]; i++) {
        float c = quick_sigmoid(in[1][i]) * in[4][i] + quick_sigmoid(in[0][i]) * quick_tangent(in[2][i]);
        float o = quick_sigmoid(in[3][i]);
        next_c[i] = c;
        next_h[i] = o * quick_tangent(c);
    }
}

STEPRNN_INLINE void small_gru(const memory *m, const uint32_t *op) {
    const real *in[7];
    real *next_h = (real *)m->arena + (op[9] & IN_BLOCK);
    uint32_t i;
    for (i = 0; i < 7; i++) in[i] = (const real *)read_at(m, op[2 + i]);
    for (i = 0; i < op[1]; i++) {
        float z = quick_sigmoid(in[0][i] + in[3][i]), r = quick_sigmoid(in[1][i] + in[4][i]);
        float g = quick_tangent(in[2][i] + r * in[5][i]);
        next_h[i] = z * in[6][i] + (1.0f - z) * g;
    }
}
#define run_lstm small_lstm
#define run_gru small_gru
#endif
