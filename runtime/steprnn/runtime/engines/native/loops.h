/* Maps, reductions, gathers and gates: loops over operands, in blocks that compilers vectorise. */
#ifndef STEPRNN_LOOPS_H
#define STEPRNN_LOOPS_H
#include "layout.h"
#include "quick.h"

/* Words of the arena and the block, whatever they were declared as. */
#if defined(__GNUC__)
typedef float __attribute__((may_alias)) real;
typedef int32_t __attribute__((may_alias)) whole;
#else
typedef float real;
typedef int32_t whole;
#endif

#if defined(STEPRNN_SMALL)
#define BLOCK 16u /* elements at a time, a multiple of the 16 partial sums */
#else
#define BLOCK 64u
#define GROUP 256u /* columns of a product at a time */
#define ROWS 8u    /* vectors that share what is read of the weights */
#define MANY 64u   /* vectors that are made ready at a time */
#endif

/* Streams of one program, and which of them is stepped. */
typedef struct {
    const uint32_t *block;
    const steprnn *streams;
    size_t count;
    const struct steprnn_kernels *use;
    uint32_t *arena;
    void *scratch;
} memory;

STEPRNN_INLINE void enter(memory *m, size_t stream) {
    m->arena = m->streams[stream].arena;
    m->scratch = m->arena + m->block[H_ARENA];
}

STEPRNN_INLINE const uint32_t *read_at(const memory *m, uint32_t place) {
    return (place >> 31 ? m->block : m->arena) + (place & IN_BLOCK);
}

#define CASE(name, expression)                                                                                        \
    case name:                                                                                                        \
        if (HAS_FUNCTION(name))                                                                                       \
            for (i = 0; i < n; i++) t[i].f = (expression);                                                            \
        break;
#define CASE_INT(name, expression)                                                                                    \
    case name:                                                                                                        \
        if (HAS_FUNCTION(name))                                                                                       \
            for (i = 0; i < n; i++) t[i].i = (expression);                                                            \
        break;
#define A (a[i].f)
#define B (b[i].f)
#define AI (a[i].i)
#define BI (b[i].i)
#define AU (a[i].u)
#define BU (b[i].u)

/* t[i] = function(a[i], b[i], c[i]) for n elements, at most BLOCK; t overlaps none of them. */
STEPRNN_INLINE void map_block(uint32_t function, steprnn_word *t, const steprnn_word *a, const steprnn_word *b,
                              const steprnn_word *c, uint32_t n) {
    uint32_t i;
    switch (function) {
        CASE(NEGATE, -A)
        CASE(ABSOLUTE, absolute(A))
        CASE(RECIPROCAL, 1.0f / A)
        CASE(ROOT, root(A))
        CASE(EXP, exponential(A))
        CASE(LOG, logarithm(A))
#if defined(STEPRNN_SMALL)
        CASE(TANH, quick_tangent(A))
        CASE(SIGMOID, quick_sigmoid(A))
#else
        CASE(TANH, tangent(A))
        CASE(SIGMOID, sigmoid(A))
#endif
        CASE(SOFTPLUS, soft_plus(A))
        CASE(ERF, error_function(A))
        CASE(FLOOR, floor_of(A))
        CASE(CEILING, ceiling_of(A))
        CASE(ROUND, nearest(A))
        CASE(SIGN, sign_of(A))
        CASE(RELU, A < 0.0f ? 0.0f : A)
        CASE(FLOAT_OF_INT, (float)AI)
        CASE_INT(INT_OF_FLOAT, int_of(A))
        CASE_INT(NOT, AI == 0)
        CASE(ADD, A + B)
        CASE(SUBTRACT, A - B)
        CASE(MULTIPLY, A * B)
        CASE(DIVIDE, A / B)
        CASE(MAXIMUM, larger(A, B))
        CASE(MINIMUM, smaller(A, B))
        CASE_INT(EQUAL, A == B)
        CASE_INT(LESS, A < B)
        CASE_INT(AT_MOST, A <= B)
        CASE_INT(ADD_INT, (int32_t)(AU + BU))
        CASE_INT(SUBTRACT_INT, (int32_t)(AU - BU))
        CASE_INT(MULTIPLY_INT, (int32_t)(AU * BU))
        CASE_INT(QUOTIENT, quotient(AI, BI))
        CASE_INT(REST, rest(AI, BI))
        CASE_INT(MAXIMUM_INT, AI > BI ? AI : BI)
        CASE_INT(MINIMUM_INT, AI < BI ? AI : BI)
        CASE_INT(EQUAL_INT, AI == BI)
        CASE_INT(LESS_INT, AI < BI)
        CASE_INT(AT_MOST_INT, AI <= BI)
        CASE_INT(AND, AI != 0 && BI != 0)
        CASE_INT(OR, AI != 0 || BI != 0)
        CASE_INT(SELECT, AI != 0 ? BI : c[i].i)
        CASE_INT(COPY, AI)
        default: break; /* there is none: check_map */
    }
}
#undef CASE
#undef CASE_INT
#undef A
#undef B
#undef AI
#undef BI
#undef AU
#undef BU

STEPRNN_INLINE void load(steprnn_word *t, const uint32_t *from, int64_t stride, uint32_t n) {
    uint32_t i;
    if (stride == 1) memcpy(t, from, 4 * (size_t)n);
    else
        for (i = 0; i < n; i++) t[i].u = from[stride * (int64_t)i];
}

/* The next index of loops, and how far each of some operands moves; 0 where all are done. */
STEPRNN_INLINE int advance(uint32_t *index, const uint32_t *sizes, uint32_t rank, const uint32_t *const *strides,
                           int64_t *at, uint32_t operands) {
    uint32_t o;
    while (rank--) {
        index[rank]++;
        for (o = 0; o < operands; o++) at[o] += (int32_t)strides[o][rank];
        if (index[rank] < sizes[rank]) return 1;
        for (o = 0; o < operands; o++) at[o] -= (int64_t)sizes[rank] * (int32_t)strides[o][rank];
        index[rank] = 0;
    }
    return 0;
}

/* x as the kernels read it: in a row, where it is or in the scratch. */
STEPRNN_INLINE const real *take_x(const memory *m, const uint32_t *op, int64_t from) {
    uint32_t a = op[1] >> 8 & 255, k = op[P_K], index[MOST_INNER] = {0}, done;
    const uint32_t *sizes = op + P_REST + (op[1] >> 24), *strides[1], *x = read_at(m, op[P_X]);
    steprnn_word *gathered = (steprnn_word *)m->scratch;
    strides[0] = sizes + a;
    if (a == 1 && (k == 1 || strides[0][0] == 1)) return (const real *)x + from;
    for (done = 0; done < k; done += sizes[a - 1]) { /* one innermost loop at a time */
        load(gathered + done, x + from, (int32_t)strides[0][a - 1], sizes[a - 1]);
        advance(index, sizes, a - 1, strides, &from, 1);
    }
    return (const real *)m->scratch;
}

STEPRNN_INLINE void run_map(const memory *m, const uint32_t *op) {
    steprnn_word t[BLOCK], held[3][BLOCK];
    uint32_t function = op[1] & 255, rank = op[1] >> 8 & 255, operands = op[1] >> 16, o, i;
    uint32_t n = op[1 + rank], index[MOST_RANK] = {0};
    const uint32_t *base[4] = {0}, *strides[4] = {0};
    uint32_t *result;
    int64_t at[4] = {0};
    for (o = 0; o < operands; o++) {
        const uint32_t *record = op + 2 + rank + o * (1 + rank);
        base[o] = read_at(m, record[0]);
        strides[o] = record + 1;
    }
    result = m->arena + (op[2 + rank] & IN_BLOCK);
    do {
        uint32_t done, count;
        for (done = 0; done < n; done += count) {
            int64_t step = (int32_t)strides[0][rank - 1], to = at[0] + step * (int64_t)done;
            count = n - done < BLOCK ? n - done : BLOCK;
            for (o = 1; o < operands; o++) {
                int64_t by = (int32_t)strides[o][rank - 1];
                load(held[o - 1], base[o] + at[o] + by * (int64_t)done, by, count);
            }
            map_block(function, t, held[0], held[1], held[2], count);
            if (step == 1) memcpy(result + to, t, 4 * (size_t)count);
            else
                for (i = 0; i < count; i++) result[to + step * (int64_t)i] = t[i].u;
        }
    } while (advance(index, op + 2, rank - 1, strides, at, operands));
}

/* The partial sums, or products, of a block that begins at a multiple of 16. */
STEPRNN_INLINE void take(float *lanes, const steprnn_word *a, uint32_t n, int product) {
    uint32_t i, j;
    for (i = 0; i < n; i += 16)
        for (j = 0; j < 16 && i + j < n; j++) lanes[j] = product ? lanes[j] * a[i + j].f : lanes[j] + a[i + j].f;
}

STEPRNN_INLINE void run_reduce(const memory *m, const uint32_t *op) {
    steprnn_word held[2][BLOCK];
    float lanes[16];
    uint32_t function = op[1] & 255, outer = op[1] >> 8 & 255, inner = op[1] >> 16, rank = outer + inner, i, j, o;
    uint32_t operands = function == DOT ? 2 : 1, index[MOST_RANK] = {0}, within_index[MOST_INNER];
    const uint32_t *sizes = op + 2, *result = sizes + rank, *record = result + 1 + outer;
    const uint32_t *base[2], *strides[3], *last = sizes + rank - 1;
    uint32_t *to = m->arena + (result[0] & IN_BLOCK);
    int64_t at[3] = {0}, inside[2];
    uint32_t total = 1;
    for (o = 0; o < operands; o++) {
        base[o] = read_at(m, record[o * (1 + rank)]);
        strides[1 + o] = record + o * (1 + rank) + 1;
    }
    strides[0] = result + 1;
    for (i = outer; i < rank; i++) total *= sizes[i];
    do {
        const uint32_t *inner_strides[2];
        uint32_t done = 0, count, best_at = 0;
        float best = 0.0f;
        for (i = 0; i < inner; i++) within_index[i] = 0;
        for (o = 0; o < operands; o++) inside[o] = at[1 + o], inner_strides[o] = strides[1 + o] + outer;
        for (i = 0; i < 16; i++) lanes[i] = function == PROD ? 1.0f : 0.0f;
        while (done < total) {
            count = 0;
            while (count < BLOCK && done + count < total) { /* as much of the last loop as fits */
                uint32_t left = *last - within_index[inner - 1], n = left < BLOCK - count ? left : BLOCK - count;
                for (o = 0; o < operands; o++) {
                    int64_t by = (int32_t)inner_strides[o][inner - 1];
                    load(held[o] + count, base[o] + inside[o], by, n);
                    inside[o] += by * (int64_t)(n - 1);
                }
                within_index[inner - 1] += n - 1;
                advance(within_index, sizes + outer, inner, inner_strides, inside, operands);
                count += n;
            }
            if (function == DOT)
                for (i = 0; i < count; i++) held[0][i].f = held[0][i].f * held[1][i].f;
            if (function <= PROD || function == DOT) take(lanes, held[0], count, function == PROD);
            else
                for (i = 0; i < count; i++) {
                    float e = held[0][i].f;
                    if (done + i == 0) best = e;
                    else if (function == LARGEST) best = larger(best, e);
                    else if (function == LEAST) best = smaller(best, e);
                    else if (function == WHERE_LARGEST ? e > best : e < best) best = e, best_at = done + i;
                }
            done += count;
        }
        if (function <= PROD || function == DOT) {
            for (i = 8; i; i /= 2)
                for (j = 0; j < i; j++)
                    lanes[j] = function == PROD ? lanes[j] * lanes[j + i] : lanes[j] + lanes[j + i];
            best = lanes[0];
        }
        to[at[0]] = function >= WHERE_LARGEST ? best_at : bits_of(best);
    } while (advance(index, sizes, outer, strides, at, 1 + operands));
}

/* Where floats are computed by calls, some come cheaper from integers, with the same bits. */
#if defined(__GNUC__) && (defined(__SOFTFP__) || (defined(__riscv) && !defined(__riscv_flen)))
#define SOFT_FLOATS 1
#define leading_zeros(x) ((uint32_t)__builtin_clzl(x)) /* of what is not 0, where a long has 32 bits */
#endif

/* value * scale of 8 bits and a float32. */
STEPRNN_QUICK uint32_t scaled_byte(int8_t value, float scale) {
#if defined(SOFT_FLOATS)
    uint32_t bits = bits_of(scale), size = value < 0 ? 0u - (uint32_t)value : (uint32_t)value, lead, half;
    if (size && bits - 0x00800000u < 0x70000000u) { /* no result is subnormal or infinite */
        size *= (bits & 0x007fffffu) | 0x00800000u;
        lead = leading_zeros(size);
        size <<= lead;
        half = (size & 255u) + (size >> 8 & 1u) > 128u; /* half to even */
        return (value < 0 ? 0x80000000u : 0u) + (((bits >> 23) + 7u - lead) << 23) + (size >> 8) + half;
    }
#endif
    return bits_of((float)value * scale);
}

STEPRNN_INLINE void run_gather(const memory *m, const uint32_t *op) {
    const uint32_t *indices_at = read_at(m, op[G_INDEX]), *data = read_at(m, op[G_DATA]);
    uint32_t rows = op[G_ROWS], inner = op[G_INNER], count = op[G_COUNT], o, i, j;
    uint32_t *result = m->arena + (op[G_RESULT] & IN_BLOCK);
    for (o = 0; o < op[G_OUTER]; o++)
        for (i = 0; i < count; i++, result += inner) {
            int64_t v = (int32_t)indices_at[(int64_t)i * (int32_t)op[G_STRIDE]];
            v = v < 0 ? v + rows : v;
            v = v < 0 ? 0 : (v >= rows ? (int64_t)rows - 1 : v);
            if (op[G_TYPE] == 0) {
                memmove(result, data + ((uint64_t)o * rows + (uint64_t)v) * inner, 4 * (size_t)inner);
            } else {
                const int8_t *row = (const int8_t *)data + (uint64_t)v * inner;
                float scale = float_of(m->block[op[G_SCALES] + (uint32_t)v]);
                for (j = 0; j < inner; j++) result[j] = scaled_byte(row[j], scale);
            }
        }
}

/* `count` elements of a gate, at most BLOCK; one function after the other, so that a processor works at several
   elements at a time. */
STEPRNN_INLINE void lstm_part(const memory *m, const uint32_t *op, uint32_t done, uint32_t count) {
    float c[BLOCK], t[4][BLOCK];
    const real *v[5];
    uint32_t i;
    for (i = 0; i < 5; i++) v[i] = (const real *)read_at(m, op[2 + i]) + done;
    for (i = 0; i < count; i++) t[0][i] = sigmoid(v[0][i]);
    for (i = 0; i < count; i++) t[1][i] = sigmoid(v[1][i]);
    for (i = 0; i < count; i++) t[2][i] = tangent(v[2][i]);
    for (i = 0; i < count; i++) t[3][i] = sigmoid(v[3][i]);
    for (i = 0; i < count; i++) c[i] = t[1][i] * v[4][i] + t[0][i] * t[2][i];
    for (i = 0; i < count; i++) t[2][i] = tangent(c[i]);
    for (i = 0; i < count; i++) t[3][i] = t[3][i] * t[2][i];
    memcpy(m->arena + (op[7] & IN_BLOCK) + done, c, 4 * (size_t)count);
    memcpy(m->arena + (op[8] & IN_BLOCK) + done, t[3], 4 * (size_t)count);
}

STEPRNN_INLINE void gru_part(const memory *m, const uint32_t *op, uint32_t done, uint32_t count) {
    steprnn_word v[7][BLOCK], t[3][BLOCK];
    uint32_t i;
    for (i = 0; i < 7; i++) memcpy(v[i], read_at(m, op[2 + i]) + done, 4 * (size_t)count);
    for (i = 0; i < count; i++) v[0][i].f = v[0][i].f + v[3][i].f, v[1][i].f = v[1][i].f + v[4][i].f;
    map_block(SIGMOID, t[0], v[0], NULL, NULL, count);
    map_block(SIGMOID, t[1], v[1], NULL, NULL, count);
    for (i = 0; i < count; i++) v[0][i].f = v[2][i].f + t[1][i].f * v[5][i].f;
    map_block(TANH, t[2], v[0], NULL, NULL, count);
    for (i = 0; i < count; i++) v[1][i].f = t[0][i].f * v[6][i].f + (1.0f - t[0][i].f) * t[2][i].f;
    memcpy(m->arena + (op[9] & IN_BLOCK) + done, v[1], 4 * (size_t)count);
}

STEPRNN_INLINE void run_lstm(const memory *m, const uint32_t *op) {
    uint32_t done = 0;
    for (; done + BLOCK <= op[1]; done += BLOCK) lstm_part(m, op, done, BLOCK);
    if (done < op[1]) lstm_part(m, op, done, op[1] - done);
}

STEPRNN_INLINE void run_gru(const memory *m, const uint32_t *op) {
    uint32_t done = 0;
    for (; done + BLOCK <= op[1]; done += BLOCK) gru_part(m, op, done, BLOCK);
    if (done < op[1]) gru_part(m, op, done, op[1] - done);
}
#endif
