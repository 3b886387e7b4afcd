#pragma once
// The losses of policies and value models. B responses, T tokens; masks are bool, true at tokens that count. All are
// means over those, float32, differentiable in the first argument; the figures beside them are not.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>

namespace llmtk::rl {

struct ClippedLoss {
  at::Tensor loss;           ///< a scalar
  at::Tensor clip_fraction;  ///< of the tokens whose clipped term counts
};

struct PolicyLoss : ClippedLoss {
  at::Tensor approx_kl;  ///< 0.5 * mean (log ratio)^2: how far the policy has moved since the responses were drawn
  at::Tensor ratio;      ///< its mean; 1 before the first step
};

/// PPO's clipped objective (Schulman et al., Proximal Policy Optimization Algorithms, 2017, equation 7):
/// mean of -min(ratio A, clip(ratio, 1 - cliprange, 1 + cliprange) A), ratio = exp(log_probs - old_log_probs).
/// All [B, T]. The figures are of real tokens; TRL's PPOTrainer counts padding among them, with a ratio of 1.
PolicyLoss ppo_policy_loss(const at::Tensor& log_probs, const at::Tensor& old_log_probs, const at::Tensor& advantages,
                           const at::Tensor& mask, double cliprange);

/// 0.5 * mean of max((V - R)^2, (clip(V, V_old - cliprange, V_old + cliprange) - R)^2), as TRL's PPOTrainer; its
/// vf_coef is the caller's. All [B, T].
ClippedLoss ppo_value_loss(const at::Tensor& values, const at::Tensor& old_values, const at::Tensor& returns,
                           const at::Tensor& mask, double cliprange_value);

/// GRPOConfig's names.
struct GrpoOptions {
  double epsilon_low = 0.2, epsilon_high = 0.2;
  std::optional<double> delta;  ///< a bound of the ratio where it is not clipped (two-sided clipping)
  double beta = 0;              ///< of the KL to the reference (k3)
  bool sequence_level = false;  ///< one ratio for a response, the geometric mean (Zheng et al., GSPO, 2025)
  enum class Mean {
    grpo,     ///< over each response's tokens, then over responses
    bnpo,     ///< over all tokens of the batch
    dr_grpo,  ///< sum / (B * max_completion_length)
    dapo,     ///< sum / num_items: tokens of the whole optimizer step
  } mean = Mean::dapo;
  int64_t max_completion_length = 0;  ///< dr_grpo
  double num_items = 0;               ///< dapo
};
/// "grpo", "bnpo", "dr_grpo", "dapo": loss_type; throws Error(usage).
GrpoOptions::Mean parse_grpo_loss(const std::string& name);

struct GrpoLoss {
  at::Tensor loss;                       ///< a scalar
  at::Tensor kl;                         ///< its mean over tokens; undefined with beta 0
  at::Tensor clipped_low, clipped_high;  ///< fractions of tokens (sequence_level: of responses) whose ratio is
                                         ///< bounded from below, above
};

/// Group relative policy optimization (Shao et al., DeepSeekMath, 2024, equation 3) with the ways to take its mean that
/// TRL's GRPOTrainer has. log_probs, old_log_probs, reference: [B, T], the last undefined with beta 0; advantages: [B].
GrpoLoss grpo_loss(const at::Tensor& log_probs, const at::Tensor& old_log_probs, const at::Tensor& reference,
                   const at::Tensor& advantages, const at::Tensor& mask, const GrpoOptions& options);

}  // namespace llmtk::rl
