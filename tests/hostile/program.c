/* Damaged step programs: opened, and stepped where the interpreter takes them. Built with sanitizers, it ends
   at the first read or write outside; see tests/hostile/programs.py, which builds and runs it.

   program COUNT SEED FILE...: a line with how many were made, taken and stepped. */
#include "steprnn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_WORK = 4000, MOST_ARENA = 1 << 16 };
static uint64_t state;

static uint32_t draw(uint32_t below) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717u) >> 33) % below;
}

static uint32_t odd(uint32_t old) { /* a number that is likely to matter */
    static const uint32_t edges[] = {0,          1,          2,          255,        256,        65535, 0x7fffffff,
                                     0x80000000, 0x80000001, 0xffffffff, 0xfffffffe, 0x10000000, 64,    0x3fffffff};
    switch (draw(6)) {
        case 0: return edges[draw(sizeof edges / sizeof *edges)];
        case 1: return old + 1 + draw(16);
        case 2: return old - 1 - draw(16);
        case 3: return old ^ 1u << draw(32);
        case 4: return old * 2 + draw(2);
        default: return draw(0x7fffffff) >> draw(31);
    }
}

static double setting(double least, double most) { /* mostly one that a sampler takes */
    static const double edges[] = {0, -1, 1, 0.5, 1e-6, 1e-300, 1000, 1e300, 0.01, 100, 0.9};
    uint64_t bits = (uint64_t)odd(draw(0x7fffffff)) << 32 | draw(0x7fffffff);
    double any;
    memcpy(&any, &bits, sizeof any);
    if (draw(8)) return draw(3) ? least + (most - least) * (double)draw(1001) / 1000 : least;
    return draw(4) ? edges[draw(sizeof edges / sizeof *edges)] : any;
}

/* A sampler of any settings, tokens and logits; returns how many tokens it chose. */
static long sample(steprnn *stream) {
    uint32_t vocabulary = draw(4) ? 1 + draw(150) : odd(1) % 1000, recent = draw(3) ? draw(20) : 0, token, i, turn;
    steprnn_settings settings;
    steprnn_sampler sampler;
    steprnn_tensor x;
    float *logits = (float *)malloc(4 * (size_t)vocabulary + 1);
    size_t bytes;
    void *memory;
    long chosen = 0;
    settings.temperature = setting(0, 3), settings.top_p = setting(1e-3, 1), settings.min_p = setting(0, 0.5);
    settings.repeat_penalty = setting(1, 2);
    settings.top_k = draw(2) ? draw(200) : 0, settings.repeat_last_n = recent;
    if (stream && steprnn_tensor_at(stream, STEPRNN_INPUT, 0, &x) && x.tokens < 1000) vocabulary = x.tokens;
    bytes = steprnn_sampler_bytes(vocabulary, recent);
    memory = malloc(bytes);
    if (!steprnn_sampler_open(&sampler, &settings, odd(7), vocabulary, memory, bytes)) {
        if (STEPRNN_PORTABLE == draw(2)) sampler.kernels = STEPRNN_PORTABLE;
        if (stream) {
            uint32_t room[8], *next = room;
            steprnn_read(stream, &vocabulary, 1), token = 0;
            steprnn_read(stream, &token, 1);
            steprnn_generate(stream, &sampler, 8, steprnn_keep, &next);
            chosen = next - room;
        } else
            for (turn = 0; turn < 6; turn++) {
                for (i = 0; i < vocabulary; i++) {
                    uint32_t bits = odd(0x3f800000);
                    if (draw(24)) logits[i] = (float)draw(400) / 16 - 12;
                    else memcpy(logits + i, &bits, 4);
                }
                token = odd(vocabulary);
                steprnn_sampler_read(&sampler, &token, 1);
                if (steprnn_sample(&sampler, logits, &token)) break;
                if (token >= vocabulary) abort();
                chosen++;
            }
    }
    free(memory);
    free(logits);
    return chosen;
}

int main(int arguments, char **argument) {
    long count = arguments > 3 ? atol(argument[1]) : 0, made, taken = 0, stepped = 0, chosen = 0;
    long errors[STEPRNN_ERRORS] = {0};
    int files = arguments - 3, i;
    unsigned char *whole[256];
    size_t size[256];
    state = arguments > 3 ? (uint64_t)atol(argument[2]) * 2 + 1 : 1;
    for (i = 0; i < files && i < 256; i++) {
        FILE *file = fopen(argument[3 + i], "rb");
        if (!file) return 2;
        fseek(file, 0, SEEK_END);
        size[i] = (size_t)ftell(file);
        rewind(file);
        whole[i] = (unsigned char *)malloc(size[i]);
        if (fread(whole[i], 1, size[i], file) != size[i]) return 2;
        fclose(file);
    }
    for (made = 0; made < count; made++) {
        int which = (int)draw((uint32_t)(files < 256 ? files : 256)), error;
        size_t bytes = draw(16) ? size[which] : 4 * (size_t)draw((uint32_t)size[which] / 4 + 1), need;
        uint32_t *program = (uint32_t *)malloc(bytes ? bytes : 1), changes = 1 + draw(draw(4) ? 3 : 12);
        uint32_t head, first;
        steprnn stream;
        steprnn_tensor tensor;
        void *arena;
        size_t at, j;
        memcpy(program, whole[which], bytes);
        head = bytes >= 128 ? program[13] + program[14] : 0; /* mostly the operations, then what is not weights */
        first = head ? program[13] : 0;
        while (changes-- && bytes >= 4) {
            uint32_t place = draw((uint32_t)bytes / 4);
            if (draw(16) && head && head <= bytes / 4) place = draw(8) ? first + draw(head - first) : draw(head);
            if (place < bytes / 4) program[place] = odd(program[place]);
        }
        need = steprnn_arena(program, bytes);
        if (need > MOST_ARENA) need = MOST_ARENA;
        if (need && !draw(32)) need -= draw((uint32_t)need);
        arena = malloc(need ? need : 1);
        error = steprnn_open(&stream, program, bytes, arena, need);
        errors[error]++;
        if (!error) {
            taken++;
            if (steprnn_work(&stream) < MOST_WORK) {
                steprnn_kernels(&stream, (int)draw(6));
                stepped++;
                for (i = 0; i < 2; i++) {
                    for (at = 0; steprnn_tensor_at(&stream, STEPRNN_INPUT, at, &tensor); at++)
                        for (j = 0; j < tensor.elements; j++) {
                            uint32_t *word = (uint32_t *)tensor.data + j;
                            *word = draw(8) ? draw(0x7fffffff) ^ draw(2) << 31 : odd(0);
                            if (tensor.tokens && draw(64)) *word %= tensor.tokens;
                        }
                    steprnn_step(&stream);
                }
                chosen += sample(&stream);
                if (!draw(4)) { /* two rows together, and many steps of one */
                    void *other = malloc(need ? need : 1);
                    steprnn both[2];
                    size_t words = 3 * (steprnn_input_words(&stream) + 1), out = 3 * steprnn_output_words(&stream) + 1;
                    if (out < MOST_ARENA && words < MOST_ARENA) {
                        uint32_t *inputs = (uint32_t *)calloc(words, 4), *outputs = (uint32_t *)malloc(4 * out);
                        both[0] = stream;
                        if (!steprnn_open(both + 1, program, bytes, other, need)) {
                            steprnn_kernels(both + 1, steprnn_kernels(both, (int)draw(6)));
                            steprnn_step_all(both, 2);
                        }
                        steprnn_run(&stream, inputs, 3, draw(2) ? outputs : NULL, NULL);
                        free(inputs);
                        free(outputs);
                    }
                    free(other);
                }
                if (program[17] < 100 && !draw(8)) steprnn_selftest(&stream);
                steprnn_reset(&stream);
            }
        }
        if (!draw(16)) chosen += sample(NULL);
        free(arena);
        free(program);
    }
    for (i = 0; i < files && i < 256; i++) free(whole[i]);
    printf("%ld made, %ld taken, %ld stepped, %ld tokens chosen;", made, taken, stepped, chosen);
    for (i = 1; i < STEPRNN_ERRORS; i++)
        if (errors[i]) printf(" %ld: %s;", errors[i], steprnn_error(i));
    printf("\n");
    return 0;
}
