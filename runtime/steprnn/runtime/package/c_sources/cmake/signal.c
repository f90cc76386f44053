/* Steps a signal: reads the numbers of each time step from stdin, and writes a line with all outputs. */
#include "model.h"
#include "steprnn.h"
#include <stdio.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;

int main(void) {
    steprnn stream;
    steprnn_tensor tensor;
    size_t i, j;
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    while (!error) {
        for (i = 0; steprnn_tensor_at(&stream, STEPRNN_INPUT, i, &tensor); i++)
            for (j = 0; j < tensor.elements; j++) {
                double number;
                if (scanf("%lf", &number) != 1) return 0;
                if (tensor.dtype == STEPRNN_INT32) ((int32_t *)tensor.data)[j] = (int32_t)number;
                else ((float *)tensor.data)[j] = (float)number;
            }
        error = steprnn_step(&stream);
        for (i = 0; !error && steprnn_tensor_at(&stream, STEPRNN_OUTPUT, i, &tensor); i++)
            for (j = 0; j < tensor.elements; j++) printf("%.9g ", (double)((const float *)tensor.data)[j]);
        putchar('\n');
    }
    fprintf(stderr, "%s\n", steprnn_error(error));
    return 1;
}
