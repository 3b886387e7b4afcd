#include "rl/policy_losses.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "rl/advantages.h"
#include "rl/kl.h"

namespace llmtk::rl {

PolicyLoss ppo_policy_loss(const at::Tensor& log_probs, const at::Tensor& old_log_probs, const at::Tensor& advantages,
                           const at::Tensor& mask, double cliprange) {
  // Padding may hold anything: an infinity there would be NaN times 0.
  const at::Tensor log_ratio = (log_probs - old_log_probs).masked_fill(mask.logical_not(), 0);
  const at::Tensor ratio = log_ratio.exp();
  const at::Tensor plain = -advantages * ratio;
  const at::Tensor clipped = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange);
  PolicyLoss out;
  out.loss = masked_mean(at::max(plain, clipped), mask);
  out.clip_fraction = masked_mean(clipped > plain, mask).detach();
  out.approx_kl = 0.5 * masked_mean(log_ratio.detach().square(), mask);
  out.ratio = masked_mean(ratio.detach(), mask);
  return out;
}

ClippedLoss ppo_value_loss(const at::Tensor& values, const at::Tensor& old_values, const at::Tensor& returns,
                           const at::Tensor& mask, double cliprange_value) {
  const at::Tensor near = at::clamp(values, old_values - cliprange_value, old_values + cliprange_value);
  const at::Tensor plain = (values - returns).square(), clipped = (near - returns).square();
  return {0.5 * masked_mean(at::max(plain, clipped), mask), masked_mean(clipped > plain, mask).detach()};
}

GrpoOptions::Mean parse_grpo_loss(const std::string& name) {
  constexpr const char* kNames[] = {"grpo", "bnpo", "dr_grpo", "dapo"};
  for (int i = 0; i < 4; ++i)
    if (name == kNames[i]) return static_cast<GrpoOptions::Mean>(i);
  throw Error(
      Exit::usage,
      {.what = "unknown loss_type of GRPO", .got = "'" + name + "'", .expected = "grpo, bnpo, dr_grpo or dapo"});
}

namespace {

at::Tensor grpo_mean(const at::Tensor& losses, const at::Tensor& mask, const GrpoOptions& options) {
  const at::Tensor sums = (losses * mask).sum(-1);  // [B]
  switch (options.mean) {
    case GrpoOptions::Mean::grpo:
      return (sums / mask.sum(-1).clamp_min(1)).mean();
    case GrpoOptions::Mean::bnpo:
      return sums.sum() / mask.sum().clamp_min(1);
    case GrpoOptions::Mean::dr_grpo:
      LLMTK_CHECK(options.max_completion_length >= 1);
      return sums.sum() / (sums.size(0) * options.max_completion_length);
    case GrpoOptions::Mean::dapo:
      LLMTK_CHECK(options.num_items >= 1);
      return sums.sum() / options.num_items;
  }
  LLMTK_CHECK(false, "no such mean");
}

}  // namespace

GrpoLoss grpo_loss(const at::Tensor& log_probs, const at::Tensor& old_log_probs, const at::Tensor& reference,
                   const at::Tensor& advantages, const at::Tensor& mask, const GrpoOptions& options) {
  LLMTK_CHECK(reference.defined() == (options.beta != 0), "a reference and its coefficient belong together");
  const at::Tensor A = advantages.unsqueeze(1);  // [B, 1]
  at::Tensor log_ratio = (log_probs - old_log_probs).masked_fill(mask.logical_not(), 0);
  if (options.sequence_level) log_ratio = (log_ratio.sum(-1) / mask.sum(-1).clamp_min(1)).unsqueeze(-1);
  const at::Tensor ratio = log_ratio.exp();  // [B, T] or [B, 1]
  const double low = 1 - options.epsilon_low, high = 1 + options.epsilon_high;
  const at::Tensor bounded = options.delta ? ratio.clamp_max(*options.delta) : ratio;
  at::Tensor losses = -at::min(bounded * A, ratio.clamp(low, high) * A);
  GrpoLoss out;
  if (options.beta != 0) {
    const at::Tensor kl = kl_estimate(log_probs, reference, KlEstimator::k3).masked_fill(mask.logical_not(), 0);
    losses = losses + options.beta * kl;
    out.kl = masked_mean(kl.detach(), mask);
  }
  out.loss = grpo_mean(losses, mask, options);
  const auto fraction = [&](const at::Tensor& where) {
    return options.sequence_level ? where.to(at::kFloat).mean() : masked_mean(where, mask);
  };
  out.clipped_low = fraction(at::logical_and(ratio < low, A < 0));
  out.clipped_high = fraction(at::logical_and(ratio > high, A > 0));
  return out;
}

}  // namespace llmtk::rl
