#pragma once
// The language-model head fused with its loss: logits exist only chunk by chunk.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace llmtk::kernels {

struct LinearCrossEntropyOptions {
  int64_t ignore_index = -100;  ///< rows with this target are left out of everything
  double scale = 1.0;           ///< multiplies the loss, and the gradients already when they are made
  double softcap = 0.0;         ///< logits become kernels::softcap of themselves (Gemma 2); 0: they stay
};

/// scale * sum over the rows whose target is not ignore_index of -log softmax(hidden weight^T)[target]: a scalar,
/// float32. hidden: [N, H]; weight: [V, H] of the same dtype; bias: [V] of the same dtype, or undefined, added to the
/// logits; targets: [N] int64 in [0, V) or ignore_index (else CheckFailed). The gradients are made in the forward pass (when grad mode is on and they are
/// asked for), so backward only hands them on; it multiplies them when the gradient that comes in is not 1, which
/// `scale` makes unnecessary (1 / target tokens of the whole step, say). NaN or infinity in a logit makes the loss NaN
/// or infinite (a softcap bounds infinity too). Logits are rounded to hidden's dtype as HF's head does; the softmax is
/// computed in float32.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const LinearCrossEntropyOptions& options = {}, const at::Tensor& bias = {});

struct LogProbOptions {
  int64_t ignore_index = -100;  ///< rows with this target are left out of everything
  double temperature = 1.0;     ///< logits are divided by it, behind the softcap
  double softcap = 0.0;         ///< as LinearCrossEntropyOptions has it
  bool entropy = false;         ///< entropies are asked for
};

/// Both [N] float32, 0 where the target is ignore_index.
struct LogProbs {
  at::Tensor log_probs;  ///< log p(target), p = softmax(logits / temperature)
  at::Tensor entropies;  ///< -sum_v p(v) log p(v); undefined where it was not asked for
};

/// The log-probability of each row's target, and the entropy of what stands beside it, without holding the logits;
/// hidden, weight, bias and targets as linear_cross_entropy has them. Differentiable in hidden, weight and bias:
/// backward computes the logits once more, chunk by chunk, so each row may have a weight of its own that is known only
/// then (a policy's ratio, a pair's preference), any number of times.
LogProbs linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                         const LogProbOptions& options = {}, const at::Tensor& bias = {});

namespace reference {
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const LinearCrossEntropyOptions& options = {}, const at::Tensor& bias = {});
LogProbs linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                         const LogProbOptions& options = {}, const at::Tensor& bias = {});
}  // namespace reference

}  // namespace llmtk::kernels
