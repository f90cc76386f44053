/* Products of a matrix of the block and vectors: what is common to all kernels, and those for any processor.

   Each kernel gives the same bits: the sums of up to GROUP columns for up to ROWS vectors, which share what is
   read of the weights. */
#ifndef STEPRNN_PRODUCTS_H
#define STEPRNN_PRODUCTS_H
#include "fixed.h"
#include "loops.h"
#if defined(__GNUC__) && defined(__x86_64__) && !defined(STEPRNN_NO_KERNELS)
#define STEPRNN_X86 1
#include "x86.h"
#elif defined(__GNUC__) && defined(__aarch64__) && !defined(__AARCH64EB__) && !defined(STEPRNN_NO_KERNELS)
#define STEPRNN_ARM 1
#include "arm.h"
#else
static int best_kernels(void) { return STEPRNN_PORTABLE; }
#endif

/* The sums of `width` columns (16 or 32) of a panel: eight at a time, in four partial sums each. */
#define PANEL(name, type)                                                                                           \
    static void name(const type *w, const real *const *x, uint32_t rows, uint32_t k, uint32_t width,               \
                     float (*sums)[GROUP]) {                                                                        \
        uint32_t at, i, p, r, t;                                                                                    \
        for (at = 0; at < width; at += 8)                                                                           \
            for (t = 0; t < rows; t++) {                                                                            \
                float a[4][8] = {{0}};                                                                              \
                const type *row = w + at;                                                                           \
                for (r = 0; r + 4 <= k; r += 4)                                                                     \
                    for (p = 0; p < 4; p++, row += width)                                                           \
                        for (i = 0; i < 8; i++) a[p][i] += x[t][r + p] * (float)row[i];                             \
                for (p = 0; r + p < k; p++, row += width)                                                           \
                    for (i = 0; i < 8; i++) a[p][i] += x[t][r + p] * (float)row[i];                                 \
                for (i = 0; i < 8; i++) sums[t][at + i] = (a[0][i] + a[1][i]) + (a[2][i] + a[3][i]);                \
            }                                                                                                       \
    }
PANEL(floats_portable, real)
PANEL(weights_portable, int8_t)

/* The exact sums of blocks of 16 columns. */
static void bytes_portable(const int8_t *w, const int8_t *const *q, uint32_t rows, uint32_t k, uint32_t blocks,
                           const int32_t *shifts, int32_t (*sums)[GROUP]) {
    uint32_t b, i, r, t;
    (void)shifts;
    for (b = 0; b < blocks; b++)
        for (t = 0; t < rows; t++) {
            const int8_t *at = w + (size_t)16 * b * k, *x = q[t];
            int32_t a[16] = {0};
            for (r = 0; r < k; r += 4, at += 64)
                for (i = 0; i < 16; i++)
                    a[i] += at[4 * i] * x[r] + at[4 * i + 1] * x[r + 1] + at[4 * i + 2] * x[r + 2] +
                            at[4 * i + 3] * x[r + 3];
            memcpy(sums[t] + 16 * b, a, sizeof a);
        }
}

/* The kernels of a level; of int8 products also what is added to x rounded. */
typedef struct steprnn_kernels {
    void (*floats)(const real *, const real *const *, uint32_t, uint32_t, uint32_t, float (*)[GROUP]);
    void (*weights)(const int8_t *, const real *const *, uint32_t, uint32_t, uint32_t, float (*)[GROUP]);
    void (*bytes)(const int8_t *, const int8_t *const *, uint32_t, uint32_t, uint32_t, const int32_t *,
                  int32_t (*)[GROUP]);
    uint8_t flip;
} kernels;

static const kernels *kernels_of(int level) {
    static const kernels all[] = {
        {floats_portable, weights_portable, bytes_portable, 0},
#if defined(STEPRNN_X86)
        {floats_avx2, weights_avx2, bytes_avx2, 0},
        {floats_avx2, weights_avx2, bytes_avx_vnni, 128},
        {floats_avx2, weights_avx2, bytes_vnni_256, 128},
        {floats_avx512, weights_avx512, bytes_avx2, 0},
        {floats_avx512, weights_avx512, bytes_vnni, 128},
#elif defined(STEPRNN_ARM)
        {floats_neon, weights_neon, bytes_neon, 0},
        {floats_neon, weights_neon, bytes_dot, 0},
#endif
    };
    return all + level;
}

/* x rounded to 8 bits, k of them and zeros up to a multiple of 4; returns what 1 stands for. `flip` is 128 where
   128 is added to each, else 0. The largest |x| is found by its bits, which are in the order of the numbers, NaN
   last. */
STEPRNN_INLINE float round_to_int8(const real *x, int8_t *q, uint32_t k, uint8_t flip) {
    const whole *bits = (const whole *)(const void *)x;
    int32_t most = 0;
    float m, t;
    uint32_t i;
    for (i = 0; i < k; i++) most = (bits[i] & INT32_MAX) > most ? bits[i] & INT32_MAX : most;
    m = float_of((uint32_t)most);
    for (i = k; i < up_to(k, 4); i++) q[i] = (int8_t)flip;
    t = 127.0f / m;
    if (!(m <= 3.40282347e38f) || !(t <= 3.40282347e38f)) { /* no number, or nearly 0 */
        memset(q, flip, k);
        return m <= 1.0f ? 1.0f : m * 0.0f;
    }
    for (i = 0; i < k; i++) q[i] = (int8_t)(uint8_t)((uint8_t)bits_of(x[i] * t + 12582912.0f) ^ flip);
    return m / 127.0f;
}

#if defined(__GNUC__)
/* 16 numbers, wherever they lie; a target makes of them as many registers as it needs. */
typedef float __attribute__((vector_size(64), aligned(4), may_alias)) floats16;
typedef int32_t __attribute__((vector_size(64), aligned(4), may_alias)) wholes16;
#endif

/* What the sums of `count` columns become in y: exact sums take a unit, int8 weights a scale. The sums are read up
   to a multiple of 16. */
STEPRNN_INLINE void finish(const memory *m, const uint32_t *op, uint32_t column, uint32_t count, const void *sums,
                           float unit, uint32_t *y) {
    uint32_t addends = op[1] >> 24, type = op[1] & 255, i = 0, j;
    int64_t stride = (int32_t)op[P_Y_STRIDE];
    const real *scales = (const real *)(m->block + op[P_SCALES]) + column, *added[2] = {0};
    for (j = 0; j < addends; j++) added[j] = (const real *)read_at(m, op[P_REST + j]) + column;
    y += stride * (int64_t)column;
#if defined(__GNUC__)
    for (; stride == 1 && i + 16 <= count; i += 16) {
        floats16 f;
        if (type == PRODUCT_INT8)
            f = __builtin_convertvector(*(const wholes16 *)((const int32_t *)sums + i), floats16) *
                (unit * *(const floats16 *)(scales + i));
        else if (type == PRODUCT_FLOAT) f = *(const floats16 *)((const float *)sums + i);
        else f = *(const floats16 *)((const float *)sums + i) * *(const floats16 *)(scales + i);
        if (addends > 0) f = f + *(const floats16 *)(added[0] + i);
        if (addends > 1) f = f + *(const floats16 *)(added[1] + i);
        *(floats16 *)(y + i) = f;
    }
#endif
    for (; i < count; i++) {
        float v;
        if (type == PRODUCT_INT8) v = (float)((const int32_t *)sums)[i] * (unit * scales[i]);
        else v = type == PRODUCT_FLOAT ? ((const float *)sums)[i] : ((const float *)sums)[i] * scales[i];
        for (j = 0; j < addends; j++) v = v + added[j][i];
        y[stride * (int64_t)i] = bits_of(v);
    }
}

/* y of up to GROUP columns that begin at `column`, for some streams that begin at `first`. */
STEPRNN_INLINE void run_group(memory *m, const uint32_t *op, size_t first, const real *const *x,
                              const int8_t *const *q, const float *units, uint32_t rows, uint32_t column, int64_t to) {
    uint32_t type = op[1] & 255, k = op[P_K], n = op[P_N], wide = up_to(n, 16), i, t, width;
    const uint32_t *weights = m->block + op[P_WEIGHTS];
    uint32_t count = wide - column < GROUP ? wide - column : GROUP;
    union {
        int32_t whole[ROWS][GROUP];
        float part[ROWS][GROUP];
    } sums;
    if (is_exact(type)) {
        uint32_t deep = up_to(k, 4);
        const int32_t *shifts = (const int32_t *)(const void *)(m->block + op[P_SCALES] + wide) + column;
        m->use->bytes((const int8_t *)weights + (size_t)column * deep, q, rows, deep, count / 16, shifts, sums.whole);
    } else
        for (i = 0; i < count; i += width) {
            size_t at = (size_t)(column + i) * k;
            float(*part)[GROUP] = (float(*)[GROUP])(void *)(sums.part[0] + i);
            width = count - i >= 32 ? 32 : 16;
            if (type == PRODUCT_FLOAT) m->use->floats((const real *)weights + at, x, rows, k, width, part);
            else m->use->weights((const int8_t *)weights + at, x, rows, k, width, part);
        }
    for (t = 0; t < rows; t++) {
        uint32_t *y;
        enter(m, first + t);
        y = m->arena + (op[P_Y] & IN_BLOCK) + to;
        if (type == PRODUCT_INT8_FIXED)
            finish_fixed(m, op, column, n - column < count ? n - column : count, sums.whole[t], units[t], y);
        else finish(m, op, column, n - column < count ? n - column : count, sums.whole[t], units[t], y);
    }
}

/* The product for each stream; what is read of the weights for one is used for ROWS. */
STEPRNN_INLINE void run_product(memory *m, const uint32_t *op) {
    uint32_t b = op[1] >> 16 & 255, addends = op[1] >> 24, k = op[P_K], index[MOST_INNER] = {0}, column;
    const uint32_t *bs = op + P_REST + addends + 2 * (op[1] >> 8 & 255), *strides[2];
    int64_t at[2] = {0};
    strides[0] = bs + b;
    strides[1] = bs + 2 * b;
    do {
        size_t first, rows, t;
        for (first = 0; first < m->count; first += rows) {
            const real *x[MANY];
            int8_t *q[MANY];
            float units[MANY];
            rows = m->count - first < MANY ? m->count - first : MANY;
            for (t = 0; t < rows; t++) {
                enter(m, first + t);
                x[t] = take_x(m, op, at[0]);
                q[t] = (int8_t *)m->scratch + 4 * (size_t)up_to(k, 16);
                units[t] = is_exact(op[1] & 255) ? round_to_int8(x[t], q[t], k, m->use->flip) : 1.0f;
            }
            for (column = 0; column < op[P_N]; column += GROUP)
                for (t = 0; t < rows; t += ROWS) {
                    uint32_t some = rows - t < ROWS ? (uint32_t)(rows - t) : ROWS;
                    run_group(m, op, first + t, x + t, (const int8_t *const *)q + t, units + t, some, column, at[1]);
                }
        }
    } while (advance(index, bs, b, strides, at, 2));
}
#endif
