/* Where everything is in a step program (docs/program-format.md), and the check of a whole one. */
#ifndef STEPRNN_LAYOUT_H
#define STEPRNN_LAYOUT_H
#include "functions.h"
#include "steprnn.h"
#include <string.h>

enum {
    MAGIC = 0x50525453,
    HEADER = 32,
    RECORD = 20,
    MOST_RECORDS = 256,
    MOST_RANK = 6,
    MOST_INNER = 4,
    MOST_INDICES = 0x10000000,
    MOST_TEST = 4096, /* steps of the self-test */
    MOST_DEPTH = 131072 /* of an int8 product: 131,072 * 127 * 127 is below 2^31 */
};
enum { IN_BLOCK = 0x7fffffff }; /* of a place without its bit 31 */
enum { H_BYTES = 2, H_VARIANT, H_ARENA, H_SCRATCH, H_INPUTS, H_STATES = 8, H_OUTPUTS = 10, H_OPERATIONS = 12 };
enum { H_OPERATIONS_AT = 13, H_OPERATIONS_WORDS, H_META_AT, H_META_BYTES, H_TEST_STEPS, H_TEST_HASH, H_FREE = 20 };
enum { R_NAME, R_NAME_BYTES, R_DTYPE, R_PLACE, R_ELEMENTS, R_TOKENS, R_STATIC, R_NEXT, R_FIRST, R_RANK, R_SHAPE };
enum { MAP = 1, REDUCE, PRODUCT, GATHER, LSTM, GRU, LSTM_FIXED, GRU_FIXED };
enum { COPY, NEGATE, ABSOLUTE, RECIPROCAL, ROOT, EXP, LOG, TANH, SIGMOID, SOFTPLUS, ERF };
enum { FLOOR = 11, CEILING, ROUND, SIGN, RELU, FLOAT_OF_INT, INT_OF_FLOAT, NOT };
enum { ADD = 19, SUBTRACT, MULTIPLY, DIVIDE, MAXIMUM, MINIMUM, EQUAL, LESS, AT_MOST };
enum { ADD_INT = 28, SUBTRACT_INT, MULTIPLY_INT, QUOTIENT, REST, MAXIMUM_INT, MINIMUM_INT };
enum { EQUAL_INT = 35, LESS_INT, AT_MOST_INT, AND, OR, SELECT, FUNCTIONS };
enum { SUM, PROD, LARGEST, LEAST, DOT, WHERE_LARGEST, WHERE_LEAST, REDUCTIONS };
enum { PRODUCT_FLOAT, PRODUCT_INT8, PRODUCT_INT8_WEIGHTS, PRODUCT_INT8_FIXED };
enum { P_K = 2, P_N, P_WEIGHTS, P_SCALES, P_X, P_Y, P_Y_STRIDE, P_REST };
enum { G_TYPE = 1, G_OUTER, G_ROWS, G_INNER, G_COUNT, G_INDEX, G_STRIDE, G_DATA, G_SCALES, G_RESULT, G_WORDS };

/* What is compiled, a bit for each kind of operation, function of a map and type of a product; a program that needs
   another is refused. `steprnn package --as c` leaves out what its model does not need. */
#if !defined(STEPRNN_KINDS)
#define STEPRNN_KINDS 0xffffffffu
#define STEPRNN_FUNCTIONS 0xffffffffffffffffu
#define STEPRNN_TYPES 0xffffffffu
#endif
#define HAS(kind) ((uint32_t)STEPRNN_KINDS >> (kind) & 1)
#define HAS_FUNCTION(number) ((uint64_t)STEPRNN_FUNCTIONS >> (number) & 1)
#define HAS_TYPE(number) ((uint32_t)STEPRNN_TYPES >> (number) & 1)

STEPRNN_INLINE uint32_t up_to(uint32_t n, uint32_t multiple) { return (n + multiple - 1) / multiple * multiple; }
/* Whether x is rounded to 8 bits, so that the sums of a product are exact. */
STEPRNN_INLINE int is_exact(uint32_t type) { return type == PRODUCT_INT8 || type == PRODUCT_INT8_FIXED; }
STEPRNN_INLINE uint32_t arity(uint32_t function) { return function == SELECT ? 3 : (function < ADD ? 1 : 2); }

typedef struct {
    const uint32_t *block;
    uint64_t words;   /* of the block */
    uint64_t arena;   /* words */
    uint64_t scratch; /* bytes */
    uint64_t work;
} checker;

static int within(const checker *c, uint32_t place, uint64_t count, int written) {
    uint64_t at = place & IN_BLOCK, room = place >> 31 ? c->words : c->arena;
    if (written && place >> 31) return 0;
    return at <= room && count <= room - at;
}

/* The indices of a loop nest, or 0 where a size is 0 or they are too many. */
static uint64_t indices(const uint32_t *sizes, uint32_t rank) {
    uint64_t count = 1;
    uint32_t i;
    for (i = 0; i < rank; i++) {
        if (sizes[i] == 0 || sizes[i] > MOST_INDICES) return 0;
        count *= sizes[i];
        if (count > MOST_INDICES) return 0;
    }
    return count;
}

/* Whether every element of an operand, a place and its strides, lies where it may. */
static int covered(const checker *c, uint32_t place, const uint32_t *sizes, const uint32_t *strides, uint32_t rank,
                   int written) {
    int64_t low = place & IN_BLOCK, high = low, room = (int64_t)(place >> 31 ? c->words : c->arena);
    uint32_t i;
    if (written && place >> 31) return 0;
    for (i = 0; i < rank; i++) { /* at most 10 terms below 2^59 */
        int64_t reach = (int64_t)(sizes[i] - 1) * (int32_t)strides[i];
        if (reach < 0) low += reach;
        else high += reach;
    }
    return low >= 0 && high < room;
}

static int check_map(checker *c, const uint32_t *op, uint32_t words) {
    uint32_t function, rank, operands, i;
    uint64_t count;
    if (words < 2) return STEPRNN_OPERATION;
    function = op[1] & 255;
    rank = op[1] >> 8 & 255;
    operands = op[1] >> 16;
    if (function >= FUNCTIONS || !HAS_FUNCTION(function) || operands != 1 + arity(function) || rank < 1 || rank > MOST_RANK)
        return STEPRNN_OPERATION;
    if (words != 2 + rank + operands * (1 + rank)) return STEPRNN_OPERATION;
    count = indices(op + 2, rank);
    if (!count) return STEPRNN_SIZE;
    c->work += count;
    for (i = 0; i < operands; i++) {
        const uint32_t *o = op + 2 + rank + i * (1 + rank);
        if (!covered(c, o[0], op + 2, o + 1, rank, i == 0)) return STEPRNN_OUTSIDE;
    }
    return STEPRNN_OK;
}

static int check_reduce(checker *c, const uint32_t *op, uint32_t words) {
    uint32_t function, outer, inner, rank, operands, i;
    uint64_t count;
    if (words < 2) return STEPRNN_OPERATION;
    function = op[1] & 255;
    outer = op[1] >> 8 & 255;
    inner = op[1] >> 16;
    if (function >= REDUCTIONS || outer > MOST_RANK || inner < 1 || inner > MOST_INNER) return STEPRNN_OPERATION;
    rank = outer + inner;
    operands = function == DOT ? 2 : 1;
    if (words != 2 + rank + (1 + outer) + operands * (1 + rank)) return STEPRNN_OPERATION;
    count = indices(op + 2, rank);
    if (!count) return STEPRNN_SIZE;
    c->work += count;
    op += 2;
    if (!covered(c, op[rank], op, op + rank + 1, outer, 1)) return STEPRNN_OUTSIDE;
    for (i = 0; i < operands; i++) {
        const uint32_t *o = op + rank + 1 + outer + i * (1 + rank);
        if (!covered(c, o[0], op, o + 1, rank, 0)) return STEPRNN_OUTSIDE;
    }
    return STEPRNN_OK;
}

static int check_product(checker *c, const uint32_t *op, uint32_t words) {
    uint32_t type, a, b, addends, k, n, wide, j;
    uint32_t sizes[2 * MOST_INNER], strides[2 * MOST_INNER + 1];
    const uint32_t *ks, *bs;
    uint64_t depth, rows, held, scales, scratch;
    if (words < P_REST) return STEPRNN_OPERATION;
    type = op[1] & 255;
    a = op[1] >> 8 & 255;
    b = op[1] >> 16 & 255;
    addends = op[1] >> 24;
    if (type > PRODUCT_INT8_FIXED || !HAS_TYPE(type) || a < 1 || a > MOST_INNER || b > MOST_INNER || addends > 2)
        return STEPRNN_OPERATION;
    if (words != P_REST + addends + 2 * a + 3 * b) return STEPRNN_OPERATION;
    ks = op + P_REST + addends;
    bs = ks + 2 * a;
    k = op[P_K];
    n = op[P_N];
    depth = indices(ks, a);
    rows = indices(bs, b);
    if (!depth || !rows || depth != k || n == 0 || n > MOST_INDICES) return STEPRNN_SIZE;
    if (depth * n > MOST_INDICES || depth * n * rows > MOST_INDICES) return STEPRNN_SIZE; /* below 2^56 */
    if (is_exact(type) && k > MOST_DEPTH) return STEPRNN_SIZE;
    c->work += depth * n * rows;
    wide = up_to(n, 16);
    held = (uint64_t)(is_exact(type) ? up_to(k, 4) : k) * wide / (type == PRODUCT_FLOAT ? 1 : 4);
    scales = type == PRODUCT_FLOAT ? 0 : (uint64_t)wide * (is_exact(type) ? 2 : 1);
    if (op[P_WEIGHTS] >> 31 || op[P_SCALES] >> 31) return STEPRNN_OUTSIDE;
    if (!within(c, op[P_WEIGHTS] | 0x80000000u, held, 0) || !within(c, op[P_SCALES] | 0x80000000u, scales, 0))
        return STEPRNN_OUTSIDE;
    for (j = 0; j < a; j++) sizes[j] = ks[j], strides[j] = ks[a + j];
    for (j = 0; j < b; j++) sizes[a + j] = bs[j], strides[a + j] = bs[b + j];
    if (!covered(c, op[P_X], sizes, strides, a + b, 0)) return STEPRNN_OUTSIDE;
    sizes[0] = n, strides[0] = op[P_Y_STRIDE];
    for (j = 0; j < b; j++) sizes[1 + j] = bs[j], strides[1 + j] = bs[2 * b + j];
    if (!covered(c, op[P_Y], sizes, strides, 1 + b, 1)) return STEPRNN_OUTSIDE;
    for (j = 0; j < addends; j++)
        if (!within(c, op[P_REST + j], n, 0)) return STEPRNN_OUTSIDE;
    scratch = 4 * (uint64_t)up_to(k, 16) + up_to(k, 64);
    return scratch > c->scratch ? STEPRNN_SIZE : STEPRNN_OK;
}

static int check_gather(checker *c, const uint32_t *op, uint32_t words) {
    uint64_t data, result;
    if (words != G_WORDS || op[G_TYPE] > 1) return STEPRNN_OPERATION;
    if (!indices(op + G_OUTER, 3)) return STEPRNN_SIZE;
    data = (uint64_t)op[G_OUTER] * op[G_ROWS] * op[G_INNER];
    if (op[G_COUNT] == 0 || op[G_COUNT] > MOST_INDICES) return STEPRNN_SIZE;
    result = (uint64_t)op[G_OUTER] * op[G_INNER] * op[G_COUNT]; /* below 2^56 */
    if (result > MOST_INDICES) return STEPRNN_SIZE;
    c->work += result;
    if (!covered(c, op[G_INDEX], op + G_COUNT, op + G_STRIDE, 1, 0)) return STEPRNN_OUTSIDE;
    if (op[G_TYPE] == 1) {
        if (op[G_OUTER] != 1 || !(op[G_DATA] >> 31)) return STEPRNN_OPERATION;
        if (!within(c, op[G_DATA], (data + 3) / 4, 0)) return STEPRNN_OUTSIDE;
        if (op[G_SCALES] >> 31 || !within(c, op[G_SCALES] | 0x80000000u, op[G_ROWS], 0)) return STEPRNN_OUTSIDE;
    } else if (!within(c, op[G_DATA], data, 0)) {
        return STEPRNN_OUTSIDE;
    }
    return within(c, op[G_RESULT], result, 1) ? STEPRNN_OK : STEPRNN_OUTSIDE;
}

/* LSTM and GRU: n, places that are read, then places that are written. */
static int check_gates(checker *c, const uint32_t *op, uint32_t words, uint32_t read, uint32_t written) {
    uint32_t i;
    if (words != 2 + read + written) return STEPRNN_OPERATION;
    if (op[1] == 0 || op[1] > MOST_INDICES) return STEPRNN_SIZE;
    c->work += 8 * (uint64_t)op[1];
    for (i = 0; i < read + written; i++)
        if (!within(c, op[2 + i], op[1], i >= read)) return STEPRNN_OUTSIDE;
    return STEPRNN_OK;
}

static int check_operation(checker *c, const uint32_t *op, uint32_t words) {
    uint32_t kind = op[0] & 255;
    if (HAS(MAP) && kind == MAP) return check_map(c, op, words);
    if (HAS(REDUCE) && kind == REDUCE) return check_reduce(c, op, words);
    if (HAS(PRODUCT) && kind == PRODUCT) return check_product(c, op, words);
    if (HAS(GATHER) && kind == GATHER) return check_gather(c, op, words);
    if (HAS(LSTM) && kind == LSTM) return check_gates(c, op, words, 5, 2);
    if (HAS(GRU) && kind == GRU) return check_gates(c, op, words, 7, 1);
    if (HAS(LSTM_FIXED) && kind == LSTM_FIXED) return check_gates(c, op, words, 5, 2);
    if (HAS(GRU_FIXED) && kind == GRU_FIXED) return check_gates(c, op, words, 7, 1);
    return STEPRNN_OPERATION;
}

static int check_record(const checker *c, const uint32_t *r, int kind) {
    uint64_t end = (uint64_t)r[R_NAME] + r[R_NAME_BYTES];
    uint32_t i;
    if (end > 4 * c->words || r[R_NAME_BYTES] == 0 || r[R_DTYPE] > STEPRNN_INT32) return STEPRNN_RECORD;
    if (r[R_PLACE] >> 31 || !within(c, r[R_PLACE], r[R_ELEMENTS], 1)) return STEPRNN_RECORD;
    if (r[R_RANK] > 8 || indices(r + R_SHAPE, r[R_RANK]) != r[R_ELEMENTS]) return STEPRNN_RECORD;
    for (i = r[R_RANK] + R_SHAPE; i < RECORD; i++)
        if (r[i]) return STEPRNN_RECORD;
    if (r[R_TOKENS] && (r[R_DTYPE] != STEPRNN_INT32 || kind != STEPRNN_INPUT || r[R_TOKENS] > INT32_MAX))
        return STEPRNN_RECORD;
    if (r[R_STATIC] > (kind == STEPRNN_INPUT ? 1u : 0u)) return STEPRNN_RECORD;
    if (kind != STEPRNN_STATE) return r[R_NEXT] || r[R_FIRST] ? STEPRNN_RECORD : STEPRNN_OK;
    if (r[R_DTYPE] != STEPRNN_FLOAT32 || r[R_NEXT] >> 31 || r[R_FIRST] >> 31) return STEPRNN_RECORD;
    if (!within(c, r[R_NEXT], r[R_ELEMENTS], 1)) return STEPRNN_RECORD;
    return within(c, r[R_FIRST] | 0x80000000u, r[R_FIRST] ? r[R_ELEMENTS] : 0, 0) ? STEPRNN_OK : STEPRNN_RECORD;
}

static int check_header(const uint32_t *h, size_t bytes) {
    uint32_t i;
    if (bytes < 4 * HEADER) return STEPRNN_SHORT;
    if (h[0] != MAGIC) return STEPRNN_MAGIC;
    if (h[1] != STEPRNN_VERSION) return STEPRNN_NEWER;
    if (h[H_BYTES] % 4 || h[H_BYTES] < 4 * HEADER || h[H_BYTES] > INT32_MAX) return STEPRNN_HEADER;
    if (h[H_BYTES] > bytes) return STEPRNN_SHORT;
    if (h[H_TEST_STEPS] > MOST_TEST) return STEPRNN_HEADER;
    if (h[H_VARIANT] > 3 || h[H_ARENA] > MOST_INDICES || h[H_SCRATCH] > INT32_MAX) return STEPRNN_HEADER;
    for (i = H_FREE; i < HEADER; i++)
        if (h[i]) return STEPRNN_HEADER;
    if ((uint64_t)h[H_META_AT] * 4 + h[H_META_BYTES] > h[H_BYTES]) return STEPRNN_HEADER;
    return h[H_INPUTS] && h[H_OUTPUTS] ? STEPRNN_OK : STEPRNN_HEADER;
}

/* Everything but the length of the arena; the work is counted on the way. */
static int check_program(const uint32_t *h, size_t bytes, uint64_t *work) {
    static const uint32_t records[3] = {H_INPUTS, H_STATES, H_OUTPUTS};
    checker c;
    uint32_t kind, i, at, left;
    int found = check_header(h, bytes);
    if (found) return found;
    c.block = h;
    c.words = h[H_BYTES] / 4;
    c.arena = h[H_ARENA];
    c.scratch = h[H_SCRATCH];
    c.work = 0;
    for (kind = 0; kind < 3; kind++) {
        uint32_t count = h[records[kind]], where = h[records[kind] + 1];
        if (count > MOST_RECORDS || where >> 31 || !within(&c, where | 0x80000000u, (uint64_t)count * RECORD, 0))
            return STEPRNN_RECORD;
        for (i = 0; i < count; i++)
            if ((found = check_record(&c, h + where + i * RECORD, (int)kind)) != 0) return found;
    }
    at = h[H_OPERATIONS_AT];
    left = h[H_OPERATIONS_WORDS];
    if (at >> 31 || !within(&c, at | 0x80000000u, left, 0)) return STEPRNN_OPERATION;
    for (i = 0; i < h[H_OPERATIONS]; i++) {
        uint32_t words = left ? h[at] >> 8 : 0;
        if (words == 0 || words > left) return STEPRNN_OPERATION;
        if ((found = check_operation(&c, h + at, words)) != 0) return found;
        at += words;
        left -= words;
    }
    *work = c.work;
    return left ? STEPRNN_OPERATION : STEPRNN_OK;
}
#endif
