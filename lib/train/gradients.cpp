#include "train/gradients.h"

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "kernels/optimizer.h"

namespace llmtk::train {
namespace {

/// Runs when a parameter's grad is complete.
struct AddToSum final : torch::autograd::PostAccumulateGradHook {
  AddToSum(at::Tensor& sum, char& reached) : sum(sum), reached(reached) {}
  void operator()(const at::Tensor& parameter) override {
    const torch::autograd::AutoGradMode no_grad(false);
    at::Tensor& gradient = parameter.mutable_grad();
    if (!sum.defined()) sum = at::empty_like(gradient, gradient.options().dtype(at::kFloat));
    if (reached)
      kernels::accumulate_(sum, gradient.contiguous());
    else
      sum.copy_(gradient);
    reached = true;
    gradient.reset();
  }
  at::Tensor& sum;
  char& reached;
};

}  // namespace

Gradients::Gradients(const std::vector<Parameter>& parameters, bool accumulates)
    : parameters_(parameters), sums_(parameters.size()), reached_(parameters.size(), false) {
  sums_in_float32_ = accumulates && std::ranges::any_of(parameters_, [](const Parameter& parameter) {
                       return parameter.tensor.scalar_type() != at::kFloat;
                     });
  if (!sums_in_float32_) return;
  for (size_t i = 0; i < parameters_.size(); ++i)
    torch::autograd::impl::set_post_acc_grad_hooks(parameters_[i].tensor,
                                                   std::make_unique<AddToSum>(sums_[i], reached_[i]));
}

Gradients::~Gradients() {
  if (!sums_in_float32_) return;
  for (const auto& parameter : parameters_) torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor, nullptr);
}

std::vector<at::Tensor> Gradients::tensors() const {
  std::vector<at::Tensor> gradients(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!sums_in_float32_) {
      gradients[i] = parameters_[i].tensor.grad();
      if (gradients[i].defined() && !gradients[i].is_contiguous()) gradients[i] = gradients[i].contiguous();
    } else if (reached_[i]) {
      gradients[i] = sums_[i];
    }
  }
  return gradients;
}

void Gradients::clear() {
  for (const auto& parameter : parameters_) parameter.tensor.mutable_grad().reset();
  std::ranges::fill(reached_, false);
}

}  // namespace llmtk::train
