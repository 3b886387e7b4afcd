#pragma once
// How far a policy has moved from its reference, and what that costs it.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace llmtk::rl {

/// Estimates of KL(policy || reference) from the policy's own samples, token by token (Schulman, Approximating KL
/// Divergence, 2020; TRL's kl_estimator). With r = reference(token) / policy(token):
enum class KlEstimator {
  k1,  ///< -log r: unbiased, of either sign
  k3,  ///< (r - 1) - log r: unbiased too, of less variance, never negative
};
/// "k1", "k3"; throws Error(usage).
KlEstimator parse_kl_estimator(const std::string& name);

/// log_probs, reference: of the same tokens, any shape. Differentiable.
at::Tensor kl_estimate(const at::Tensor& log_probs, const at::Tensor& reference, KlEstimator estimator);

/// The coefficient of the KL penalty: fixed, or led towards a target by the proportional controller of Ziegler et al.,
/// Fine-Tuning Language Models from Human Preferences (2019), section 2.2 (TRL's AdaptiveKLController).
class KlController {
 public:
  /// target: the KL of a whole response, in nats; none: the coefficient stays. horizon: episodes over which an error of
  /// 10 % changes the coefficient by about as much.
  explicit KlController(double coefficient, std::optional<double> target = std::nullopt, int64_t horizon = 10000);
  double coefficient() const { return coefficient_; }
  /// To be called after each batch: coefficient *= 1 + clip(kl / target - 1, -0.2, 0.2) * episodes / horizon.
  void update(double kl, int64_t episodes);
  /// Goes on where a saved run stood.
  void set_coefficient(double coefficient) { coefficient_ = coefficient; }

 private:
  double coefficient_;
  std::optional<double> target_;
  int64_t horizon_;
};

}  // namespace llmtk::rl
