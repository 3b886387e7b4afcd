#include "nn/checkpoint.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>

#include "core/error.h"

namespace llmtk::nn {
namespace {

using Function = std::function<Tensors(const Tensors&)>;
using torch::autograd::AutogradContext;

/// The state of the generators that a layer may draw from: the CPU's and that of the tensors' device.
class RandomState {
 public:
  explicit RandomState(c10::Device device) {
    add(at::detail::getDefaultCPUGenerator());
    if (device.is_cuda()) add(at::globalContext().defaultGenerator(device));
  }
  void restore() const {
    for (const auto& [generator, state] : states_) {
      at::Generator target = generator;
      const std::lock_guard lock(target.mutex());
      target.set_state(state);
    }
  }

 private:
  void add(at::Generator generator) {
    const std::lock_guard lock(generator.mutex());
    states_.emplace_back(generator, generator.get_state());
  }
  std::vector<std::pair<at::Generator, at::Tensor>> states_;
};

struct Saved : torch::CustomClassHolder {
  Function function;
  std::optional<RandomState> random;
  size_t inputs = 0;
  std::vector<bool> defined;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  /// tensors: the inputs that are defined, then the parameters. The parameters are arguments so that gradients reach
  /// them even when no input needs one (a frozen embedding under LoRA).
  static Tensors forward(AutogradContext* ctx, at::TensorList tensors, const c10::intrusive_ptr<Saved>& saved) {
    ctx->save_for_backward({tensors.begin(), tensors.end()});
    ctx->saved_data["state"] = c10::IValue::make_capsule(saved);
    const at::NoGradGuard no_grad;
    Tensors outputs = saved->function(all_inputs(*saved, tensors));
    // An output must not be an input itself: autograd would take it for one that was changed in place.
    for (at::Tensor& output : outputs)
      for (const at::Tensor& tensor : tensors)
        if (output.is_same(tensor)) output = output.view_as(output);
    return outputs;
  }

  static Tensors backward(AutogradContext* ctx, Tensors gradients) {
    const auto saved = c10::static_intrusive_pointer_cast<Saved>(ctx->saved_data["state"].toCapsule());
    const Tensors tensors = ctx->get_saved_variables();
    Tensors leaves = tensors;
    for (size_t i = 0; i < saved->inputs; ++i)
      leaves[i] = tensors[i].detach().requires_grad_(tensors[i].requires_grad());

    const RandomState now(tensors[0].device());
    saved->random->restore();
    Tensors outputs;
    {
      const at::AutoGradMode with_grad(true);
      outputs = saved->function(all_inputs(*saved, leaves));
    }
    now.restore();

    Tensors roots, root_gradients, wanted;
    for (size_t i = 0; i < outputs.size(); ++i)
      if (outputs[i].requires_grad() && gradients[i].defined()) {
        roots.push_back(outputs[i]);
        root_gradients.push_back(gradients[i]);
      }
    for (const at::Tensor& leaf : leaves)
      if (leaf.requires_grad()) wanted.push_back(leaf);
    Tensors found(wanted.size());
    if (!roots.empty())
      found = torch::autograd::grad(roots, wanted, root_gradients, std::nullopt, false, /*allow_unused=*/true);
    Tensors result(leaves.size() + 1);  // one more: `saved` is an argument too
    for (size_t i = 0, next = 0; i < leaves.size(); ++i)
      if (leaves[i].requires_grad()) result[i] = found[next++];
    return result;
  }

  static Tensors all_inputs(const Saved& saved, at::TensorList tensors) {
    Tensors inputs(saved.defined.size());
    for (size_t i = 0, next = 0; i < inputs.size(); ++i)
      if (saved.defined[i]) inputs[i] = tensors[next++];
    return inputs;
  }
};

thread_local RecordLayers* recorder = nullptr;

}  // namespace

RecordLayers::RecordLayers() {
  LLMTK_CHECK(!recorder, "layers are recorded already");
  recorder = this;
}

RecordLayers::~RecordLayers() { recorder = nullptr; }

Tensors checkpoint(const torch::nn::Module& module, const Tensors& inputs, Function function) {
  if (!at::GradMode::is_enabled()) {
    if (!recorder) return function(inputs);
    recorder->calls.push_back({&module, inputs, std::move(function)});
    return {inputs[0], at::Tensor()};
  }
  const auto saved = c10::make_intrusive<Saved>();
  Tensors tensors;
  for (const at::Tensor& input : inputs) {
    saved->defined.push_back(input.defined());
    if (input.defined()) tensors.push_back(input);
  }
  LLMTK_CHECK(!tensors.empty(), "nothing to checkpoint");
  saved->inputs = tensors.size();
  saved->random.emplace(tensors[0].device());
  saved->function = std::move(function);
  for (const at::Tensor& parameter : module.parameters())
    if (parameter.requires_grad()) tensors.push_back(parameter);
  return Checkpoint::apply(at::TensorList(tensors), saved);
}

}  // namespace llmtk::nn
