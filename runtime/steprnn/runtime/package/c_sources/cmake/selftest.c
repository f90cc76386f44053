/* Whether this machine computes the same bits as the one that wrote the program. */
#include "model.h"
#include "steprnn.h"
#include <stdio.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;

int main(void) {
    steprnn stream;
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (!error) error = steprnn_selftest(&stream);
    printf("%s\n", error ? steprnn_error(error) : "every bit is right");
    return error != 0;
}
