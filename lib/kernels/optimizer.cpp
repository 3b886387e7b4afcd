#include "kernels/optimizer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "kernels/backend.h"

namespace llmtk::kernels {

std::pair<at::Tensor, at::Tensor> split_master(const at::Tensor& master) {
  LLMTK_CHECK(master.scalar_type() == at::kFloat, "the master is ", master.scalar_type());
  const at::Tensor bits = master.contiguous().view(at::kInt);
  const at::Tensor high = at::bitwise_right_shift(bits + 0x8000, 16);  // round half away from zero
  const at::Tensor low = bits - at::bitwise_left_shift(high, 16);
  return {high.to(at::kShort).view(at::kBFloat16), low.to(at::kShort)};
}

at::Tensor join_master(const at::Tensor& weight, const at::Tensor& extra) {
  LLMTK_CHECK(weight.scalar_type() == at::kBFloat16 && extra.scalar_type() == at::kShort, "weight is ",
              weight.scalar_type(), ", extra is ", extra.scalar_type());
  const at::Tensor high = weight.contiguous().view(at::kShort).to(at::kInt);
  return (at::bitwise_left_shift(high, 16) + extra.to(at::kInt)).view(at::kFloat);
}

namespace reference {
namespace {

/// The float32 master of a parameter: itself, or joined.
at::Tensor master_of(const at::Tensor& param, const at::Tensor& extra) {
  return param.scalar_type() == at::kFloat ? param : join_master(param, extra);
}

void store_master(at::Tensor& param, at::Tensor& extra, const at::Tensor& master) {
  if (param.scalar_type() == at::kFloat) return;
  const auto [weight, low] = split_master(master);
  param.copy_(weight);
  extra.copy_(low);
}

}  // namespace

void adamw_step(std::span<AdamWTensor> tensors, const AdamWOptions& options) {
  const at::NoGradGuard no_grad;
  const double correction1 = 1.0 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1.0 - std::pow(options.beta2, static_cast<double>(options.step));
  for (AdamWTensor& t : tensors) {
    const double lr = options.lr * t.lr_scale;
    const at::Tensor grad = t.grad.to(at::kFloat) * options.grad_scale;
    at::Tensor master = master_of(t.param, t.extra);
    master.mul_(1.0 - lr * t.weight_decay);
    t.exp_avg.lerp_(grad, 1.0 - options.beta1);
    t.exp_avg_sq.mul_(options.beta2).addcmul_(grad, grad, 1.0 - options.beta2);
    const at::Tensor denominator = t.exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(options.eps);
    master.addcdiv_(t.exp_avg, denominator, -lr / correction1);
    store_master(t.param, t.extra, master);
    if (options.zero_grad) t.grad.zero_();
  }
}

void sgd_step(std::span<SgdTensor> tensors, const SgdOptions& options) {
  const at::NoGradGuard no_grad;
  for (SgdTensor& t : tensors) {
    at::Tensor master = master_of(t.param, t.extra);
    at::Tensor grad = t.grad.to(at::kFloat) * options.grad_scale + master * t.weight_decay;
    if (options.momentum != 0.0) {
      t.momentum.mul_(options.momentum).add_(grad);
      grad = options.nesterov ? grad + t.momentum * options.momentum : t.momentum;
    }
    master.sub_(grad * (options.lr * t.lr_scale));
    store_master(t.param, t.extra, master);
    if (options.zero_grad) t.grad.zero_();
  }
}

double squared_norm(std::span<const at::Tensor> tensors) {
  double sum = 0.0;
  for (const at::Tensor& t : tensors) sum += t.detach().to(at::kDouble).square().sum().item<double>();
  return sum;
}

}  // namespace reference

void adamw_step(std::span<AdamWTensor> tensors, const AdamWOptions& options) {
  reference::adamw_step(tensors, options);
}

void sgd_step(std::span<SgdTensor> tensors, const SgdOptions& options) { reference::sgd_step(tensors, options); }

double squared_norm(std::span<const at::Tensor> tensors) { return reference::squared_norm(tensors); }

void accumulate_(at::Tensor& dst, const at::Tensor& src) {
  const at::NoGradGuard no_grad;
  dst.add_(src);
}

}  // namespace llmtk::kernels
