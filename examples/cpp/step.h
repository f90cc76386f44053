// The step of a model in an engine: one token in, the logits of the next one out. The states stay inside.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct Step {
    virtual ~Step() = default;
    // What is returned is valid until the next call.
    virtual const std::vector<float> &take(std::int32_t token) = 0;
};

// Throws std::exception where the file is none, or its tensors are not x, y and states with their next_ ones.
std::unique_ptr<Step> open_step(const std::string &path);
