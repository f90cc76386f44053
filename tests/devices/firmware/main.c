/* Steps the model of `steprnn package --as c` and tells what it took: lines of a word and a number. */
#include "board.h"
#include "model.h"
#include "steprnn.h"

#ifndef STEPS
#define STEPS 1000 /* that are chained and hashed */
#endif
#ifndef COUNTED
#define COUNTED 32 /* whose instructions are counted */
#endif
#define PAINT 0xa5a5a5a5u

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;
static steprnn stream;

static void tell(const char *word, uint32_t number) {
    char text[12], *at = text + sizeof text;
    *--at = 0;
    *--at = '\n';
    do *--at = (char)('0' + number % 10);
    while (number /= 10);
    board_write(word);
    board_write(at);
}

/* As the self-test draws them. */
static void draw_inputs(uint32_t *draw) {
    steprnn_tensor tensor;
    size_t i, j;
    for (i = 0; steprnn_tensor_at(&stream, STEPRNN_INPUT, i, &tensor); i++)
        for (j = 0; j < tensor.elements; j++) {
            *draw = *draw * 1664525u + 1013904223u;
            if (tensor.dtype == STEPRNN_INT32) ((int32_t *)tensor.data)[j] = (int32_t)((*draw >> 8) % tensor.tokens);
            else ((float *)tensor.data)[j] = ((float)((*draw >> 8) & 65535u) - 32768.0f) / 32768.0f;
        }
}

/* Opens and steps on a stack whose use can be seen afterwards. */
__attribute__((noinline)) static int open_and_step(void) {
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    return error ? error : steprnn_step(&stream);
}

__attribute__((noinline)) static uint32_t stack_of(int (*run)(void), int *error) {
    uint32_t *end = board_stack(), *at;
    uint32_t *top = end ? (uint32_t *)((uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)3) - 24 : end;
    for (at = end; at < top; at++) *(volatile uint32_t *)at = PAINT;
    *error = run();
    for (at = end; at < top && *(volatile uint32_t *)at == PAINT; at++) {}
    return end ? (uint32_t)((uintptr_t)__builtin_frame_address(0) - (uintptr_t)at) : 0;
}

int main(void) {
    uint32_t draw = 12345, counted = 0, step, before;
    uint64_t hash;
    int error;
    tell("stack ", stack_of(open_and_step, &error));
    if (!error) error = steprnn_selftest(&stream);
    if (error) {
        board_write(steprnn_error(error));
        board_write("\n");
        board_exit(1);
    }
    tell("program ", (uint32_t)sizeof model_program);
    tell("arena ", (uint32_t)sizeof arena);
    tell("stream ", (uint32_t)sizeof stream);
    for (step = 0; step < COUNTED; step++) {
        draw_inputs(&draw);
        before = board_now();
        steprnn_step(&stream);
        counted += board_since(before);
    }
    tell("steps ", COUNTED);
    tell("counted ", counted);
    tell("loop ", board_loop);
    hash = steprnn_hash(&stream, STEPS);
    tell("upper ", (uint32_t)(hash >> 32));
    tell("lower ", (uint32_t)hash);
    board_exit(0);
    return 0;
}
