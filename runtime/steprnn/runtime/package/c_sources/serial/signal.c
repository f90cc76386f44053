/* Steps the model over a made-up wave and prints its outputs: put your sensor's reading into `x`. */
#include "model.h"
#include "steprnn.h"
#include <stdio.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;

#ifdef ESP_PLATFORM
void app_main(void)
#else
int main(void)
#endif
{
    steprnn stream;
    steprnn_tensor x, y;
    size_t input, i;
    int n;
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (!error) error = steprnn_selftest(&stream); /* every bit is as on the computer that made it */
    for (n = 0; !error && n < 100; n++) {
        for (input = 0; steprnn_tensor_at(&stream, STEPRNN_INPUT, input, &x); input++)
            for (i = 0; i < x.elements; i++) {
                if (x.dtype == STEPRNN_INT32) ((int32_t *)x.data)[i] = 0;
                else ((float *)x.data)[i] = (float)(n % 20) / 10.0f - 1.0f;
            }
        error = steprnn_step(&stream);
        steprnn_tensor_at(&stream, STEPRNN_OUTPUT, 0, &y);
        for (i = 0; !error && i < y.elements; i++)
            printf("%.6f%c", (double)((const float *)y.data)[i], i + 1 < y.elements ? ' ' : '\n');
    }
    if (error) printf("%s\n", steprnn_error(error));
#ifndef ESP_PLATFORM
    return error;
#endif
}
