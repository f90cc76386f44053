/* Writes text: main PROMPT LENGTH [SEED [TEMPERATURE [TOP_K [TOP_P]]]]. Without a seed it is greedy. */
#include "model.h"
#include "steprnn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;
static double memory[MODEL_TOKENS * 2 + 2]; /* steprnn_sampler_bytes, without a repetition penalty */

#ifdef MODEL_BYTES

static int write_token(void *context, uint32_t token) {
    (void)context;
    return putchar((int)token) < 0;
}

/* The token that a text begins with, and its bytes; 0 of them where there is none. */
static size_t first_token(const char *text, uint32_t *token) {
    *token = (unsigned char)*text;
    return 1;
}

#else

static int write_token(void *context, uint32_t token) {
    (void)context;
    return fputs(model_vocabulary[token], stdout) < 0;
}

static size_t first_token(const char *text, uint32_t *token) {
    for (*token = 0; *token < MODEL_TOKENS; ++*token) {
        size_t length = strlen(model_vocabulary[*token]);
        if (strncmp(text, model_vocabulary[*token], length) == 0) return length;
    }
    return 0;
}

#endif

static int fail(int error) {
    fprintf(stderr, "%s\n", steprnn_error(error));
    return 1;
}

int main(int count, char **argument) {
    static steprnn_sampler sampler;
    steprnn stream;
    steprnn_settings settings = {0.0, 1.0, 0.0, 1.0, 0, 0};
    const char *at = count > 2 ? argument[1] : "";
    uint64_t seed = count > 3 ? strtoull(argument[3], NULL, 10) : 0;
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (error) return fail(error);
    if (!*at) return fprintf(stderr, "usage: %s PROMPT LENGTH [SEED [TEMPERATURE [TOP_K [TOP_P]]]]\n", *argument), 2;
    settings.temperature = count > 4 ? atof(argument[4]) : (count > 3 ? 1.0 : 0.0);
    settings.top_k = count > 5 ? (uint32_t)atol(argument[5]) : 0;
    settings.top_p = count > 6 ? atof(argument[6]) : 1.0;
    error = steprnn_sampler_open(&sampler, &settings, seed, MODEL_TOKENS, memory, sizeof memory);
    if (error) return fail(error);
    while (*at) {
        uint32_t token;
        size_t length = first_token(at, &token);
        if (length == 0) return fprintf(stderr, "not in the vocabulary: %s\n", at), 2;
        if ((error = steprnn_read(&stream, &token, 1)) != 0) return fail(error);
        at += length;
    }
    fputs(argument[1], stdout);
    error = steprnn_generate(&stream, &sampler, (size_t)atol(argument[2]), write_token, NULL);
    if (error) return fail(error);
    putchar('\n');
    return 0;
}
