// Steps the model ten times a second and prints its outputs: put your sensor's reading into `x`.
#include <model.h>
#include <steprnn.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;
static steprnn stream;

static void stop(int error) {
    for (;;) {
        Serial.println(steprnn_error(error));
        delay(1000);
    }
}

void setup() {
    Serial.begin(115200);
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (!error) error = steprnn_selftest(&stream);  // every bit is as on the computer that made it
    if (error) stop(error);
}

void loop() {
    static int n = 0;
    steprnn_tensor x, y;
    for (size_t input = 0; steprnn_tensor_at(&stream, STEPRNN_INPUT, input, &x); input++)
        for (size_t i = 0; i < x.elements; i++) {
            if (x.dtype == STEPRNN_INT32) ((int32_t *)x.data)[i] = 0;
            else ((float *)x.data)[i] = (float)(n % 20) / 10.0f - 1.0f;
        }
    n++;
    int error = steprnn_step(&stream);
    if (error) stop(error);
    steprnn_tensor_at(&stream, STEPRNN_OUTPUT, 0, &y);
    for (size_t i = 0; i < y.elements; i++) {
        Serial.print(((const float *)y.data)[i], 6);
        Serial.print(i + 1 < y.elements ? ' ' : '\n');
    }
    delay(100);
}
