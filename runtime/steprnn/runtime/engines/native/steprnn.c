/* The interpreter of step programs: see steprnn.h for how to use it, docs/program-format.md for what it does. */
#include "steprnn.h"
#include "fixed.h"
#include "loops.h"
#if defined(STEPRNN_SMALL)
#include "small.h"
#else
#include "products.h"
#endif
#include <float.h>

#if defined(__FAST_MATH__)
#error "compile without -ffast-math: it changes float32 results"
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: only half floats differ */
#error "float32 must be computed in float32: on 32-bit x86 compile with -msse2 -mfpmath=sse"
#endif

/* Every operation, one after the other, each for all streams. */
STEPRNN_INLINE void run_all(memory *m) {
    const uint32_t *op = m->block + m->block[H_OPERATIONS_AT];
    uint32_t left = m->block[H_OPERATIONS];
    size_t i;
    for (; left--; op += op[0] >> 8) {
        uint32_t kind = op[0] & 255;
        if (kind == PRODUCT) {
            if (HAS(PRODUCT)) run_product(m, op);
        } else
            for (i = 0; i < m->count; i++) {
                enter(m, i);
                if (HAS(MAP) && kind == MAP) run_map(m, op);
                else if (HAS(REDUCE) && kind == REDUCE) run_reduce(m, op);
                else if (HAS(GATHER) && kind == GATHER) run_gather(m, op);
                else if (HAS(LSTM) && kind == LSTM) run_lstm(m, op);
                else if (HAS(GRU) && kind == GRU) run_gru(m, op);
                else if (HAS(LSTM_FIXED) && kind == LSTM_FIXED) fixed_lstm(m, op);
                else if (HAS(GRU_FIXED) && kind == GRU_FIXED) fixed_gru(m, op);
            }
    }
}

/* Whether a * b + c is rounded twice, in code of the same target as the kernels. */
STEPRNN_INLINE int is_contracted(void) {
    volatile float a = 1.000244140625f, c = -1.00048828125f; /* (1 + 2^-12)^2 - (1 + 2^-11) = 2^-24, or 0 */
    float x = a, y = a, z = c;
    return x * y + z != 0.0f;
}

static void run_portable(memory *m) { run_all(m); }
static int contracted_portable(void) { return is_contracted(); }
#ifdef STEPRNN_X86
FOR_AVX2 static void run_avx2(memory *m) { run_all(m); }
FOR_AVX512 static void run_avx512(memory *m) { run_all(m); }
FOR_AVX512 static int contracted_avx512(void) { return is_contracted(); }
#endif

size_t steprnn_arena(const void *program, size_t bytes) {
    const uint32_t *h = (const uint32_t *)program;
    if ((uintptr_t)program % 4 || check_header(h, bytes)) return 0;
    return 4 * (size_t)h[H_ARENA] + h[H_SCRATCH];
}

int steprnn_open(steprnn *s, const void *program, size_t bytes, void *arena, size_t arena_bytes) {
    const uint32_t *h = (const uint32_t *)program;
    uint64_t work = 0;
    int error;
    if ((uintptr_t)program % 4 || (uintptr_t)arena % 4) return STEPRNN_ALIGNMENT;
    if ((error = check_program(h, bytes, &work)) != 0) return error;
    if ((uint64_t)h[H_ARENA] * 4 + h[H_SCRATCH] > arena_bytes) return STEPRNN_ARENA;
    s->program = h;
    s->arena = (uint32_t *)arena;
    s->work = work;
    s->kernels = best_kernels();
    if (contracted_portable()) return STEPRNN_ARITHMETIC;
#ifdef STEPRNN_X86
    if (s->kernels >= STEPRNN_AVX512 && contracted_avx512()) return STEPRNN_ARITHMETIC;
#endif
    memset(arena, 0, 4 * (size_t)h[H_ARENA] + h[H_SCRATCH]);
    steprnn_reset(s);
    return STEPRNN_OK;
}

const char *steprnn_error(int error) {
    static const char *const words[STEPRNN_ERRORS] = {
        "no error",
        "the program is shorter than it says",
        "this is no step program",
        "the program is of another version of the format",
        "program and arena must begin at addresses that 4 divides",
        "the program's header is impossible",
        "an input, a state or an output of the program is impossible",
        "the arena is smaller than the program needs",
        "the program holds an operation that is unknown or malformed",
        "an operation of the program reads or writes outside",
        "an operation of the program has no or too many elements",
        "compiled in a way that changes float32 results: use -ffp-contract=off",
        "a token is outside the vocabulary",
        "the self-test gives other bits",
        "the program has no self-test",
        "the program is no language model",
        "the largest logit is not finite",
        "a setting of the sampler is outside its range",
    };
    return error >= 0 && error < STEPRNN_ERRORS ? words[error] : "unknown error";
}

static const uint32_t *record_of(const steprnn *s, int kind, size_t index) {
    static const uint32_t heads[3] = {H_INPUTS, H_STATES, H_OUTPUTS};
    if (kind < 0 || kind > 2 || index >= s->program[heads[kind]]) return NULL;
    return s->program + s->program[heads[kind] + 1] + index * RECORD;
}

int steprnn_tensor_at(const steprnn *s, int kind, size_t index, steprnn_tensor *t) {
    const uint32_t *r = record_of(s, kind, index);
    if (!r) return 0;
    t->name = (const char *)s->program + r[R_NAME];
    t->name_bytes = r[R_NAME_BYTES];
    t->dtype = (int)r[R_DTYPE];
    t->elements = r[R_ELEMENTS];
    t->tokens = r[R_TOKENS];
    t->is_static = (int)r[R_STATIC];
    t->data = s->arena + r[R_PLACE];
    t->rank = r[R_RANK];
    memcpy(t->shape, r + R_SHAPE, sizeof t->shape);
    return 1;
}

float *steprnn_state(const steprnn *s, size_t index) {
    const uint32_t *r = record_of(s, STEPRNN_STATE, index);
    return r ? (float *)(void *)(s->arena + r[R_PLACE]) : NULL;
}

static int tokens_fit(const steprnn *s) {
    const uint32_t *h = s->program, *r = h + h[H_INPUTS + 1];
    uint32_t i, j;
    for (i = 0; i < h[H_INPUTS]; i++, r += RECORD)
        for (j = 0; r[R_TOKENS] && j < r[R_ELEMENTS]; j++)
            if (s->arena[r[R_PLACE] + j] >= r[R_TOKENS]) return 0;
    return 1;
}

/* A step of streams of one program and the same kernels, whose tokens fit. */
static void step_alike(steprnn *s, size_t count) {
    const uint32_t *h = s->program, *r;
    memory m;
    size_t stream;
    uint32_t i;
    m.block = h;
    m.streams = s;
    m.count = count;
    m.use = kernels_of(s->kernels);
#ifdef STEPRNN_X86
    if (s->kernels >= STEPRNN_AVX512) run_avx512(&m);
    else if (s->kernels >= STEPRNN_AVX2) run_avx2(&m);
    else
#endif
        run_portable(&m);
    for (stream = 0; stream < count; stream++)
        for (i = 0, r = h + h[H_STATES + 1]; i < h[H_STATES]; i++, r += RECORD)
            memmove(s[stream].arena + r[R_PLACE], s[stream].arena + r[R_NEXT], 4 * (size_t)r[R_ELEMENTS]);
}

int steprnn_step(steprnn *s) { return steprnn_step_all(s, 1); }

int steprnn_step_all(steprnn *streams, size_t count) {
    size_t i, alike;
    for (i = 0; i < count; i++)
        if (!tokens_fit(streams + i)) return STEPRNN_TOKEN;
    for (i = 0; i < count; i += alike) {
        const steprnn *s = streams + i;
        for (alike = 1; i + alike < count; alike++)
            if (s[alike].program != s->program || s[alike].kernels != s->kernels) break;
        step_alike(streams + i, alike);
    }
    return STEPRNN_OK;
}

static size_t words_of(const steprnn *s, int kind) {
    steprnn_tensor tensor;
    size_t i, words = 0;
    for (i = 0; steprnn_tensor_at(s, kind, i, &tensor); i++) words += tensor.is_static ? 0 : tensor.elements;
    return words;
}

size_t steprnn_input_words(const steprnn *s) { return words_of(s, STEPRNN_INPUT); }
size_t steprnn_output_words(const steprnn *s) { return words_of(s, STEPRNN_OUTPUT); }

int steprnn_run(steprnn *s, const void *inputs, size_t steps, void *outputs, size_t *taken) {
    const uint32_t *h = s->program, *r, *from = (const uint32_t *)inputs;
    uint32_t *to = (uint32_t *)outputs, i;
    size_t step;
    int error = STEPRNN_OK;
    for (step = 0; step < steps; step++) {
        for (i = 0, r = h + h[H_INPUTS + 1]; i < h[H_INPUTS]; i++, r += RECORD)
            if (!r[R_STATIC]) {
                memcpy(s->arena + r[R_PLACE], from, 4 * (size_t)r[R_ELEMENTS]);
                from += r[R_ELEMENTS];
            }
        if ((error = steprnn_step(s)) != 0) break;
        for (i = 0, r = h + h[H_OUTPUTS + 1]; to && i < h[H_OUTPUTS]; i++, r += RECORD) {
            memcpy(to, s->arena + r[R_PLACE], 4 * (size_t)r[R_ELEMENTS]);
            to += r[R_ELEMENTS];
        }
    }
    if (taken) *taken = step;
    return error;
}

void steprnn_reset(steprnn *s) {
    const uint32_t *h = s->program, *r = h + h[H_STATES + 1];
    uint32_t i;
    for (i = 0; i < h[H_STATES]; i++, r += RECORD) {
        uint32_t *to = s->arena + r[R_PLACE];
        if (r[R_FIRST]) memcpy(to, h + r[R_FIRST], 4 * (size_t)r[R_ELEMENTS]);
        else memset(to, 0, 4 * (size_t)r[R_ELEMENTS]);
    }
}

uint64_t steprnn_hash(steprnn *s, uint32_t steps) {
    uint64_t hash = 14695981039346656037u;
    uint32_t draw = 12345, t;
    steprnn_tensor tensor;
    size_t i, j;
    int kind;
    steprnn_reset(s);
    for (t = 0; t < steps; t++) {
        for (i = 0; steprnn_tensor_at(s, STEPRNN_INPUT, i, &tensor); i++)
            for (j = 0; j < tensor.elements && (t == 0 || !tensor.is_static); j++) {
                uint32_t *to = (uint32_t *)tensor.data + j;
                draw = draw * 1664525u + 1013904223u;
                if (tensor.dtype == STEPRNN_INT32) *to = (draw >> 8) % (tensor.tokens ? tensor.tokens : 2);
                else *to = bits_of(((float)((draw >> 8) & 65535u) - 32768.0f) / 32768.0f);
            }
        steprnn_step(s);
        for (kind = STEPRNN_OUTPUT; kind >= STEPRNN_STATE; kind--)
            for (i = 0; steprnn_tensor_at(s, kind, i, &tensor); i++)
                for (j = 0; j < tensor.elements; j++) {
                    uint32_t bits = ((const uint32_t *)tensor.data)[j];
                    if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u; /* the bits of a NaN are free */
                    hash = (hash ^ bits) * 1099511628211u;
                }
    }
    steprnn_reset(s);
    return hash;
}

int steprnn_selftest(steprnn *s) {
    const uint32_t *h = s->program;
    uint64_t expected = (uint64_t)h[H_TEST_HASH + 1] << 32 | h[H_TEST_HASH];
    if (!h[H_TEST_STEPS]) return STEPRNN_NO_SELFTEST;
    return steprnn_hash(s, h[H_TEST_STEPS]) == expected ? STEPRNN_OK : STEPRNN_SELFTEST;
}

uint64_t steprnn_work(const steprnn *s) { return s->work; }

int steprnn_best_kernels(void) { return best_kernels(); }

int steprnn_kernels(steprnn *s, int most) {
    int best = best_kernels(), level = most < best ? most : best;
#ifdef STEPRNN_X86
    if ((level == STEPRNN_AVX_VNNI && best != STEPRNN_AVX_VNNI) || (level == STEPRNN_VNNI_256 && best != STEPRNN_VNNI))
        level = STEPRNN_AVX2; /* the instructions of another family */
#endif
    s->kernels = level < STEPRNN_PORTABLE ? STEPRNN_PORTABLE : level;
    return s->kernels;
}

#if DBL_MANT_DIG >= 53 /* docs/sampling.md is in float64, which an AVR has not: a step is all there is then */
#include "sampler.h"
size_t steprnn_sampler_size(void) { return sizeof(steprnn_sampler); }
#endif

size_t steprnn_size(void) { return sizeof(steprnn); }
