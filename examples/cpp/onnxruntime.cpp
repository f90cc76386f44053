// The step of a bundle's step.onnx in onnxruntime, bound by the names of its tensors.
#include "step.h"

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <stdexcept>

namespace {

using Numbers = std::vector<float>;

class OnnxStep final : public Step {
  public:
    explicit OnnxStep(const std::string &path) : session_(environment_, path.c_str(), one_thread()) {
        Ort::AllocatorWithDefaultOptions allocator;
        for (std::size_t i = 0; i < session_.GetInputCount(); ++i)
            inputs_.push_back(session_.GetInputNameAllocated(i, allocator).get());
        for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
            outputs_.push_back(session_.GetOutputNameAllocated(i, allocator).get());
        place(outputs_, "y");
        place(inputs_, "x");
        for (std::size_t i = 0; i < inputs_.size(); ++i) { // a stream begins with states of zeros
            auto shape = session_.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape();
            std::replace(shape.begin(), shape.end(), std::int64_t{-1}, std::int64_t{1}); // one row
            if (inputs_[i] == "x") {
                given_.push_back(Ort::Value::CreateTensor<std::int32_t>(allocator, shape.data(), shape.size()));
                continue;
            }
            given_.push_back(Ort::Value::CreateTensor<float>(allocator, shape.data(), shape.size()));
            const auto size = given_.back().GetTensorTypeAndShapeInfo().GetElementCount();
            std::fill_n(given_.back().GetTensorMutableData<float>(), size, 0.0f);
            next_.push_back({i, place(outputs_, "next_" + inputs_[i])});
        }
    }

    const Numbers &take(std::int32_t token) override {
        *given_[place(inputs_, "x")].GetTensorMutableData<std::int32_t>() = token;
        std::vector<const char *> inputs, outputs;
        for (const auto &name : inputs_) inputs.push_back(name.c_str());
        for (const auto &name : outputs_) outputs.push_back(name.c_str());
        auto results = session_.Run(Ort::RunOptions{}, inputs.data(), given_.data(), given_.size(),
                                    outputs.data(), outputs.size());
        const auto &y = results[place(outputs_, "y")];
        const float *first = y.GetTensorData<float>();
        y_.assign(first, first + y.GetTensorTypeAndShapeInfo().GetElementCount());
        for (const auto &state : next_) given_[state.input] = std::move(results[state.output]);
        return y_;
    }

  private:
    struct State {
        std::size_t input, output;
    };

    static Ort::SessionOptions one_thread() {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1);
        return options;
    }

    static std::size_t place(const std::vector<std::string> &names, const std::string &name) {
        const auto found = std::find(names.begin(), names.end(), name);
        if (found == names.end()) throw std::runtime_error("the graph has no " + name);
        return static_cast<std::size_t>(found - names.begin());
    }

    Ort::Env environment_;
    Ort::Session session_;
    std::vector<std::string> inputs_, outputs_;
    std::vector<Ort::Value> given_;
    std::vector<State> next_;
    Numbers y_;
};

} // namespace

std::unique_ptr<Step> open_step(const std::string &path) { return std::make_unique<OnnxStep>(path); }
