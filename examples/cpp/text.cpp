// Writes text from C++ with an engine; the vocabulary and the sampler are of `package BUNDLE --as c --out c`:
//
//     cc -O2 -ffp-contract=off -c c/steprnn.c c/model.c
//     c++ -O2 -Ic examples/cpp/text.cpp examples/cpp/onnxruntime.cpp steprnn.o model.o -lonnxruntime -o text
//     ./text step.onnx PROMPT LENGTH [SEED [TEMPERATURE]]
//
// or with litert.cpp, -ltensorflow-lite and step.tflite. A seed gives the text that it gives in Python.
#include "model.h"
#include "step.h"
#include "steprnn.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace {

void checked(int error) {
    if (error) throw std::runtime_error(steprnn_error(error));
}

// The token that a text begins with.
std::uint32_t first_of(const char *text) {
    for (std::uint32_t token = 0; token < MODEL_TOKENS; ++token) {
        const std::size_t length = std::strlen(model_vocabulary[token]);
        if (length && !std::strncmp(text, model_vocabulary[token], length)) return token;
    }
    throw std::runtime_error(std::string(text) + " is not in the vocabulary");
}

std::string written(Step &step, const char *prompt, long length, std::uint64_t seed, double temperature) {
    steprnn_settings settings{};
    settings.temperature = temperature;
    settings.top_p = settings.repeat_penalty = 1.0;
    std::vector<std::uint64_t> memory(steprnn_sampler_bytes(MODEL_TOKENS, 0) / 8 + 1);
    steprnn_sampler sampler;
    checked(steprnn_sampler_open(&sampler, &settings, seed, MODEL_TOKENS, memory.data(), memory.size() * 8));
    std::string text;
    const std::vector<float> *logits = nullptr;
    while (*prompt) {
        const std::uint32_t token = first_of(prompt);
        prompt += std::strlen(model_vocabulary[token]);
        text += model_vocabulary[token];
        logits = &step.take(static_cast<std::int32_t>(token));
    }
    if (!logits) throw std::runtime_error("PROMPT is empty");
    if (logits->size() != MODEL_TOKENS) throw std::runtime_error("the graph is of another model than c/");
    for (long i = 0; i < length; ++i) {
        std::uint32_t token = 0;
        checked(steprnn_sample(&sampler, logits->data(), &token));
        text += model_vocabulary[token];
        if (i + 1 < length) logits = &step.take(static_cast<std::int32_t>(token));
    }
    return text;
}

} // namespace

int main(int count, char **given) {
    if (count < 4) {
        std::fprintf(stderr, "usage: %s GRAPH PROMPT LENGTH [SEED [TEMPERATURE]]\n", given[0]);
        return 2;
    }
    const std::uint64_t seed = count > 4 ? std::strtoull(given[4], nullptr, 10) : 0;
    const double temperature = count > 5 ? std::strtod(given[5], nullptr) : count > 4 ? 1.0 : 0.0;
    try {
        const auto step = open_step(given[1]);
        std::puts(written(*step, given[2], std::strtol(given[3], nullptr, 10), seed, temperature).c_str());
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
