#include "rl/preference_losses.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace llmtk::rl {
namespace {

/// log(1 - e^x), x < 0. Maechler, Accurately Computing log(1 - exp(-|a|)), 2012.
at::Tensor log1mexp(const at::Tensor& x) {
  constexpr double kMinusLog2 = -0.6931471805599453;
  const at::Tensor small = x < kMinusLog2;
  // Each branch sees only what it is for, or its gradient elsewhere would be NaN.
  const at::Tensor far = at::where(small, x, -1.0), near = at::where(small, -0.5, x);
  return at::where(small, (-far.exp()).log1p(), (-near.expm1()).log());
}

at::Tensor ipo_loss(const at::Tensor& delta, double tau) { return (delta - 1 / (2 * tau)).square(); }

}  // namespace

at::Tensor dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected, const DpoOptions& options,
                    const at::Tensor& chosen_lengths, const at::Tensor& rejected_lengths) {
  const double smoothing = options.label_smoothing;
  const at::Tensor logits = options.beta * (chosen - rejected);  // [B]
  switch (options.loss) {
    case DpoLoss::sigmoid:
      if (smoothing == 0) return -at::log_sigmoid(logits);
      return -(1 - smoothing) * at::log_sigmoid(logits) - smoothing * at::log_sigmoid(-logits);
    case DpoLoss::robust:
      LLMTK_CHECK(smoothing < 0.5, "labels that are flipped more often than not");
      return (smoothing * at::log_sigmoid(-logits) - (1 - smoothing) * at::log_sigmoid(logits)) / (1 - 2 * smoothing);
    case DpoLoss::hinge:
      return at::relu(1 - logits);
    case DpoLoss::ipo:
      return ipo_loss(chosen / chosen_lengths.clamp_min(1) - rejected / rejected_lengths.clamp_min(1), options.beta);
  }
  LLMTK_CHECK(false, "no such loss");
}

at::Tensor kto_kl(const at::Tensor& mismatched_log_ratios) {
  return mismatched_log_ratios.detach().mean().clamp_min(0);
}

at::Tensor kto_loss(const at::Tensor& log_ratios, const at::Tensor& desirable, const at::Tensor& kl,
                    const KtoOptions& options) {
  const at::Tensor sign = at::where(desirable, 1.0, -1.0), gain = at::sigmoid(options.beta * sign * (log_ratios - kl));
  return at::where(desirable, options.desirable_weight, options.undesirable_weight) * (1 - gain);
}

at::Tensor log_odds_ratio(const at::Tensor& chosen_means, const at::Tensor& rejected_means) {
  constexpr double kMost = -1e-7;
  const at::Tensor chosen = chosen_means.clamp_max(kMost), rejected = rejected_means.clamp_max(kMost);
  return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected));
}

at::Tensor bradley_terry_loss(const at::Tensor& chosen, const at::Tensor& rejected, const at::Tensor& margin,
                              double center_coefficient) {
  at::Tensor difference = chosen - rejected;
  if (margin.defined()) difference = difference - margin;
  const at::Tensor losses = -at::log_sigmoid(difference);
  return center_coefficient == 0 ? losses : losses + center_coefficient * (chosen + rejected).square();
}

}  // namespace llmtk::rl
