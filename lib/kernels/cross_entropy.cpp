#include "kernels/cross_entropy.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/backend.h"

namespace llmtk::kernels {

namespace reference {

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const LinearCrossEntropyOptions& options) {
  const at::Tensor logits = at::linear(hidden, weight).to(at::kFloat);
  return at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, options.ignore_index) * options.scale;
}

at::Tensor linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                           int64_t ignore_index) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = at::linear(hidden, weight).to(at::kFloat);
  return -at::cross_entropy_loss(logits, targets, {}, at::Reduction::None, ignore_index);
}

}  // namespace reference

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const LinearCrossEntropyOptions& options) {
  return reference::linear_cross_entropy(hidden, weight, targets, options);
}

at::Tensor linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                           int64_t ignore_index) {
  return reference::linear_log_prob(hidden, weight, targets, ignore_index);
}

}  // namespace llmtk::kernels
