#include "rl/kl.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "core/error.h"

namespace llmtk::rl {

KlEstimator parse_kl_estimator(const std::string& name) {
  if (name == "k1") return KlEstimator::k1;
  if (name == "k3") return KlEstimator::k3;
  throw Error(Exit::usage, {.what = "unknown estimator of the KL", .got = "'" + name + "'", .expected = "k1 or k3"});
}

at::Tensor kl_estimate(const at::Tensor& log_probs, const at::Tensor& reference, KlEstimator estimator) {
  const at::Tensor log_ratio = reference - log_probs;
  return estimator == KlEstimator::k1 ? -log_ratio : log_ratio.exp() - 1 - log_ratio;
}

KlController::KlController(double coefficient, std::optional<double> target, int64_t horizon)
    : coefficient_(coefficient), target_(target), horizon_(horizon) {
  LLMTK_CHECK(horizon >= 1 && (!target || *target > 0), "a target of ", target.value_or(0), ", a horizon of ", horizon);
}

void KlController::update(double kl, int64_t episodes) {
  if (!target_) return;
  const double error = std::clamp(kl / *target_ - 1, -0.2, 0.2);
  coefficient_ *= 1 + error * static_cast<double>(episodes) / static_cast<double>(horizon_);
}

}  // namespace llmtk::rl
