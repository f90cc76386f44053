// The step of a bundle's step.tflite in LiteRT (TensorFlow Lite), bound by the names of its signature.
#include "step.h"

#include <tensorflow/lite/interpreter.h>
#include <tensorflow/lite/kernels/register.h>
#include <tensorflow/lite/model.h>
#include <tensorflow/lite/signature_runner.h>

#include <cstring>
#include <stdexcept>

namespace {

class LiteStep final : public Step {
  public:
    explicit LiteStep(const std::string &path) : model_(tflite::FlatBufferModel::BuildFromFile(path.c_str())) {
        if (!model_) throw std::runtime_error(path + " is no TFLite file");
        tflite::ops::builtin::BuiltinOpResolver resolver;
        tflite::InterpreterBuilder(*model_, resolver)(&interpreter_, 1);
        if (!interpreter_ || interpreter_->signature_keys().size() != 1)
            throw std::runtime_error(path + " has not the one signature of a step");
        step_ = interpreter_->GetSignatureRunner(interpreter_->signature_keys()[0]->c_str());
        if (!step_ || step_->AllocateTensors() != kTfLiteOk) throw std::runtime_error(path + " does not open");
        x_ = given("x");
        y_ = result("y");
        for (const char *name : step_->input_names()) { // a stream begins with states of zeros
            if (!std::strcmp(name, "x")) continue;
            std::memset(given(name)->data.raw, 0, given(name)->bytes);
            states_.push_back({given(name), result("next_" + std::string(name))});
        }
    }

    const std::vector<float> &take(std::int32_t token) override {
        x_->data.i32[0] = token;
        if (step_->Invoke() != kTfLiteOk) throw std::runtime_error("the step fails");
        for (const auto &state : states_)
            std::memcpy(state.now->data.raw, state.next->data.raw, state.now->bytes);
        logits_.assign(y_->data.f, y_->data.f + y_->bytes / sizeof(float));
        return logits_;
    }

  private:
    struct State {
        TfLiteTensor *now;
        const TfLiteTensor *next;
    };

    TfLiteTensor *given(const std::string &name) {
        if (TfLiteTensor *tensor = step_->input_tensor(name.c_str())) return tensor;
        throw std::runtime_error("the graph has no " + name);
    }

    const TfLiteTensor *result(const std::string &name) {
        if (const TfLiteTensor *tensor = step_->output_tensor(name.c_str())) return tensor;
        throw std::runtime_error("the graph has no " + name);
    }

    std::unique_ptr<tflite::FlatBufferModel> model_;
    std::unique_ptr<tflite::Interpreter> interpreter_;
    tflite::SignatureRunner *step_ = nullptr;
    TfLiteTensor *x_ = nullptr;
    const TfLiteTensor *y_ = nullptr;
    std::vector<State> states_;
    std::vector<float> logits_;
};

} // namespace

std::unique_ptr<Step> open_step(const std::string &path) { return std::make_unique<LiteStep>(path); }
