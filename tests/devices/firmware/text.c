/* Writes text from the model of `steprnn package --as c`, as its main.c does on a computer. */
#include "board.h"
#include "model.h"
#include "steprnn.h"

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;
static double memory[MODEL_TOKENS * 2 + 2]; /* steprnn_sampler_bytes, without a repetition penalty */
static steprnn_sampler sampler;

static int write_token(void *context, uint32_t token) {
    (void)context;
    board_write(model_vocabulary[token]);
    return 0;
}

int main(void) {
    static const steprnn_settings settings = {0.8, 0.95, 0.0, 1.0, 40, 0};
    static const uint32_t first = 1;
    steprnn stream;
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (!error) error = steprnn_sampler_open(&sampler, &settings, 7, MODEL_TOKENS, memory, sizeof memory);
    if (!error) error = steprnn_read(&stream, &first, 1);
    if (!error) error = steprnn_generate(&stream, &sampler, 200, write_token, NULL);
    board_exit(error);
    return 0;
}
