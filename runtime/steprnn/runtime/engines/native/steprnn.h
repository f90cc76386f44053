/* steprnn: one step of a recurrent model, from a step program (docs/program-format.md).

   C99, no allocation, no static data that changes, no libm. Compile with -ffp-contract=off and without
   -ffast-math: then every target with IEEE float32 gives the same bits. An opened stream is for one thread
   at a time; a program may be shared by any number of streams, and MUST NOT change while one is open. */
#ifndef STEPRNN_H
#define STEPRNN_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#define STEPRNN_VERSION 1 /* of the format */

/* What a call returns: 0, or one of these; steprnn_error has it in words. */
enum {
    STEPRNN_OK = 0,
    STEPRNN_SHORT = 1,        /* the block is shorter than it says, or than a header */
    STEPRNN_MAGIC = 2,        /* no step program, or one of the other byte order */
    STEPRNN_NEWER = 3,        /* another version of the format */
    STEPRNN_ALIGNMENT = 4,    /* program or arena at an address that 4 does not divide */
    STEPRNN_HEADER = 5,       /* a word of the header is impossible */
    STEPRNN_RECORD = 6,       /* an input, a state or an output lies outside, or is impossible */
    STEPRNN_ARENA = 7,        /* the arena given is too small: steprnn_arena tells the bytes */
    STEPRNN_OPERATION = 8,    /* an operation of an unknown kind, function, rank or length */
    STEPRNN_OUTSIDE = 9,      /* an operation reads or writes outside the arena or the block */
    STEPRNN_SIZE = 10,        /* a loop of no or of too many elements */
    STEPRNN_ARITHMETIC = 11,  /* compiled in a way that changes float32 results */
    STEPRNN_TOKEN = 12,       /* a token input outside 0 .. tokens - 1: no step was taken */
    STEPRNN_SELFTEST = 13,    /* the self-test gives other bits */
    STEPRNN_NO_SELFTEST = 14, /* the program has none */
    STEPRNN_NOT_TEXT = 15,    /* the program is no language model */
    STEPRNN_NOT_FINITE = 16,  /* the largest logit is no number */
    STEPRNN_SETTING = 17,     /* a setting of the sampler is outside its range */
    STEPRNN_ERRORS = 18
};

enum { STEPRNN_FLOAT32 = 0, STEPRNN_INT32 = 1 };
enum { STEPRNN_INPUT = 0, STEPRNN_STATE = 1, STEPRNN_OUTPUT = 2 };
/* Kernels, the later the faster where the processor has them; all give the same bits. */
enum { STEPRNN_PORTABLE = 0 };
enum { STEPRNN_AVX2 = 1, STEPRNN_AVX_VNNI, STEPRNN_VNNI_256, STEPRNN_AVX512, STEPRNN_VNNI }; /* x86-64 */
enum { STEPRNN_NEON = 1, STEPRNN_DOT };                                                       /* aarch64 */

/* An opened stream; its fields are private. */
typedef struct {
    const uint32_t *program;
    uint32_t *arena; /* words, then scratch */
    uint64_t work;   /* loop indices of one step */
    int32_t kernels;
} steprnn;

/* A named tensor of one row. */
typedef struct {
    const char *name; /* not terminated */
    size_t name_bytes;
    int dtype;       /* STEPRNN_FLOAT32 or STEPRNN_INT32 */
    size_t elements;
    uint32_t tokens; /* of a token input: how many there are; else 0 */
    int is_static;   /* an input that stays the same over a stream */
    void *data;      /* in the arena: float or int32_t [elements] */
    size_t rank;
    uint32_t shape[8];
} steprnn_tensor;

/* The bytes of arena that a program needs; 0 where it is none. */
size_t steprnn_arena(const void *program, size_t bytes);

/* Check everything in the program against both lengths, and begin a stream. The arena must be aligned to 4
   bytes (64 is faster), and stays the caller's. */
int steprnn_open(steprnn *s, const void *program, size_t bytes, void *arena, size_t arena_bytes);

/* The error in words. */
const char *steprnn_error(int error);

/* Tensor `index` of a kind; 0 where there is none. Inputs are written, outputs read, states both. */
int steprnn_tensor_at(const steprnn *s, int kind, size_t index, steprnn_tensor *tensor);
/* The data of the state `index`, or NULL. */
float *steprnn_state(const steprnn *s, size_t index);

/* Take one time step: reads the inputs, writes the outputs, and the next states become the states. */
int steprnn_step(steprnn *s);
/* One time step in each of streams one after the other in memory. Those of one program share what is read of
   its weights. At an error no stream of them was stepped. */
int steprnn_step_all(steprnn *streams, size_t count);
/* The words that one step reads of the inputs, and those that it gives as outputs. */
size_t steprnn_input_words(const steprnn *s);
size_t steprnn_output_words(const steprnn *s);
/* Take `steps` steps with the same bits as one by one. For each step `inputs` has the words of every input that
   is not static, in their order. The words of all outputs of each step, in their order, go to `outputs`; where
   that is NULL, those of the last step are read as after steprnn_step. Stops at the first error; `taken`, where
   it is not NULL, is how many steps were taken. */
int steprnn_run(steprnn *s, const void *inputs, size_t steps, void *outputs, size_t *taken);
/* Begin again: the states are the first ones. */
void steprnn_reset(steprnn *s);

/* Replay the program's self-test and begin again; STEPRNN_OK where every bit is as it should be. */
int steprnn_selftest(steprnn *s);
/* The hash of the self-test over so many steps, whatever the program says; begins again. */
uint64_t steprnn_hash(steprnn *s, uint32_t steps);

/* How a token is chosen: docs/sampling.md has each setting, its range and what switches it off. */
typedef struct {
    double temperature, top_p, min_p, repeat_penalty; /* off: 0, 1, 0, 1 */
    uint32_t top_k, repeat_last_n;                    /* off: 0, 0 */
} steprnn_settings;

/* The sampler of one text; its fields are private. */
typedef struct {
    steprnn_settings settings;
    double most_behind;
    uint64_t seen, *keys;
    const float *logits, *narrow;
    float *values, top, reach, below;
    uint32_t *recent, vocabulary, room, sorted, heaped, at, twister[624];
    unsigned char *is_recent;
    int32_t kernels;
} steprnn_sampler;

/* The bytes of both structs, for languages that do not read this header. */
size_t steprnn_size(void);
size_t steprnn_sampler_size(void);

/* The bytes that a sampler needs beside itself. */
size_t steprnn_sampler_bytes(uint32_t vocabulary, uint32_t repeat_last_n);
/* Begin with a seed; the memory, aligned to 8 bytes, stays the caller's. */
int steprnn_sampler_open(steprnn_sampler *s, const steprnn_settings *settings, uint64_t seed, uint32_t vocabulary,
                         void *memory, size_t bytes);
/* The same without asking the processor, which takes long in a virtual machine: `kernels` is what steprnn_best_kernels
   says, or less. */
int steprnn_sampler_open_with(int kernels, steprnn_sampler *s, const steprnn_settings *settings, uint64_t seed,
                              uint32_t vocabulary, void *memory, size_t bytes);
/* Tokens of the prompt, for the repetition penalty. */
void steprnn_sampler_read(steprnn_sampler *s, const uint32_t *tokens, size_t count);
/* The next token for logits [vocabulary]. */
int steprnn_sample(steprnn_sampler *s, const float *logits, uint32_t *token);
/* The same for rows of one vocabulary, logits [rows, vocabulary]; UINT32_MAX where a row has no next token. */
void steprnn_sample_rows(steprnn_sampler *const *samplers, size_t rows, const float *logits, uint32_t *tokens);
/* How likely a token of each row is, as a natural logarithm within 1e-6, for logits [rows, vocabulary]; NaN where the
   largest logit is no finite number. The tokens are below the vocabulary; `kernels` is what steprnn_best_kernels says,
   or less. */
void steprnn_log_probabilities(int kernels, const float *logits, size_t rows, uint32_t vocabulary,
                               const uint32_t *tokens, double *logarithms);

/* Step a language model through tokens, such as a prompt's. */
int steprnn_read(steprnn *s, const uint32_t *tokens, size_t count);
/* Is given each token; the text ends where it returns what is not 0. */
typedef int (*steprnn_write)(void *context, uint32_t token);
/* A `write` that keeps the tokens in a row; the context is a uint32_t **, which moves on. */
int steprnn_keep(void *context, uint32_t token);
/* Write at most `length` tokens after what was read last. The last of them is not read: to go on, read it. */
int steprnn_generate(steprnn *s, steprnn_sampler *sampler, size_t length, steprnn_write write, void *context);

/* The operations of one step: indices of all its loops. */
uint64_t steprnn_work(const steprnn *s);
/* The fastest kernels of this processor. */
int steprnn_best_kernels(void);
/* Use at most these kernels; returns those in use. */
int steprnn_kernels(steprnn *s, int most);

#ifdef __cplusplus
}
#endif
#endif
