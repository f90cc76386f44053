// Writes text to the serial port, begun with the first token of the vocabulary.
#include <model.h>
#include <steprnn.h>

static uint32_t arena[MODEL_ARENA_WORDS] MODEL_ALIGNED;
static double memory[MODEL_TOKENS * 2 + 2];  // steprnn_sampler_bytes, without a repetition penalty
static steprnn_sampler sampler;
static steprnn stream;

static void stop(int error) {
    for (;;) {
        Serial.println(steprnn_error(error));
        delay(1000);
    }
}

static int write_token(void *, uint32_t token) {
#ifdef MODEL_BYTES
    Serial.write((uint8_t)token);
#else
    Serial.print(model_vocabulary[token]);
#endif
    return 0;
}

void setup() {
    Serial.begin(115200);
    int error = steprnn_open(&stream, model_program, sizeof model_program, arena, sizeof arena);
    if (!error) error = steprnn_selftest(&stream);  // every bit is as on the computer that made it
    steprnn_settings settings = {0.8, 1.0, 0.0, 1.0, 20, 0};  // temperature 0.8, the 20 likeliest
    if (!error) error = steprnn_sampler_open(&sampler, &settings, 7, MODEL_TOKENS, memory, sizeof memory);
    if (error) stop(error);
}

void loop() {
    const uint32_t first = 0;
    steprnn_reset(&stream);
    int error = steprnn_read(&stream, &first, 1);
    if (!error) error = steprnn_generate(&stream, &sampler, 100, write_token, NULL);
    if (error) stop(error);
    Serial.println();
    delay(1000);
}
