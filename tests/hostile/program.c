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

int main(int arguments, char **argument) {
    long count = arguments > 3 ? atol(argument[1]) : 0, made, taken = 0, stepped = 0;
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
                if (program[17] < 100 && !draw(8)) steprnn_selftest(&stream);
                steprnn_reset(&stream);
            }
        }
        free(arena);
        free(program);
    }
    for (i = 0; i < files && i < 256; i++) free(whole[i]);
    printf("%ld made, %ld taken, %ld stepped;", made, taken, stepped);
    for (i = 1; i < STEPRNN_ERRORS; i++)
        if (errors[i]) printf(" %ld: %s;", errors[i], steprnn_error(i));
    printf("\n");
    return 0;
}
