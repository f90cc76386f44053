/* Writes text to the console, begun with the first token of the vocabulary. */
#include "model.h"
#include "steprnn.h"
#include <stdio.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;
static double memory[MODEL_TOKENS * 2 + 2]; /* steprnn_sampler_bytes, without a repetition penalty */
static steprnn_sampler sampler;

static int write_token(void *context, uint32_t token) {
    (void)context;
#ifdef MODEL_BYTES
    putchar((int)token);
#else
    fputs(model_vocabulary[token], stdout);
#endif
    return 0;
}

#ifdef ESP_PLATFORM
void app_main(void)
#else
int main(void)
#endif
{
    static const steprnn_settings settings = {0.8, 1.0, 0.0, 1.0, 20, 0}; /* temperature 0.8, the 20 likeliest */
    static const uint32_t first = 0;
    steprnn stream;
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (!error) error = steprnn_selftest(&stream); /* every bit is as on the computer that made it */
    if (!error) error = steprnn_sampler_open(&sampler, &settings, 7, MODEL_TOKENS, memory, sizeof memory);
    if (!error) error = steprnn_read(&stream, &first, 1);
    if (!error) error = steprnn_generate(&stream, &sampler, 100, write_token, NULL);
    printf("\n%s", error ? steprnn_error(error) : "");
#ifndef ESP_PLATFORM
    return error;
#endif
}
