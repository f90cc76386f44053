/* The hash of each step program over so many steps, with at most these kernels: hash STEPS KERNELS FILE... */
#include "steprnn.h"
#include <stdio.h>
#include <stdlib.h>

int main(int arguments, char **argument) {
    int i;
    for (i = 3; i < arguments; i++) {
        FILE *file = fopen(argument[i], "rb");
        uint32_t *program = (uint32_t *)malloc(1 << 22);
        size_t bytes = file && program ? fread(program, 1, 1 << 22, file) : 0, need = steprnn_arena(program, bytes);
        void *arena = malloc(need);
        steprnn stream;
        int error = steprnn_open(&stream, program, bytes, arena, need), test;
        uint64_t hash;
        if (error) return printf("%s\n", steprnn_error(error)), 1;
        steprnn_kernels(&stream, atoi(argument[2]));
        test = steprnn_selftest(&stream);
        if (test) return printf("%s: %s\n", argument[i], steprnn_error(test)), 1;
        hash = steprnn_hash(&stream, (uint32_t)atol(argument[1]));
        printf("%08lx%08lx\n", (unsigned long)(hash >> 32), (unsigned long)(hash & 0xffffffffu));
        fclose(file);
        free(arena);
        free(program);
    }
    return 0;
}
