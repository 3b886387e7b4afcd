#pragma once
// From rewards to what a policy is taught by. B responses, T tokens of the longest. Masks are bool, true at tokens that
// count. Nothing here is differentiated.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace llmtk::rl {

/// sum(values * mask) / sum(mask): a scalar (TRL's masked_mean). values and mask of one shape.
at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& mask);

/// (values - mean) / sqrt(var + 1e-8), mean and unbiased variance those of the masked values; what is masked is
/// computed alike (TRL's masked_whiten). shift_mean false: the mean is put back, as for rewards. Throws CheckFailed
/// where fewer than two values count: they have no variance.
at::Tensor masked_whiten(const at::Tensor& values, const at::Tensor& mask, bool shift_mean = true);

/// Rewards of tokens [B, T]: -coefficient * kl, and each response's score at its end. kl: [B, T], 0 at padding; scores:
/// [B]; last: [B] int64, the index of each response's last token. As TRL's PPOTrainer has it, the score stands one
/// place behind the last token where there is one, else on it.
at::Tensor token_rewards(const at::Tensor& kl, double coefficient, const at::Tensor& scores, const at::Tensor& last);

struct Advantages {
  at::Tensor advantages;  ///< [B, T]
  at::Tensor returns;     ///< [B, T], advantages + values: what the value model learns
};
/// Generalized advantage estimation (Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage
/// Estimation, 2016, equations 11 to 16): A_t = sum_l (gamma lambda)^l delta_{t+l}, delta_t = r_t + gamma V_{t+1} -
/// V_t, V_T = 0. rewards, values: [B, T] float32, 0 at padding behind the end.
Advantages generalized_advantages(const at::Tensor& rewards, const at::Tensor& values, double gamma, double lambda);

/// What a group's rewards are divided by (GRPOConfig's scale_rewards).
enum class ScaleRewards {
  group,  ///< their standard deviation + 1e-4
  batch,  ///< that of all rewards of the batch
  none,   ///< nothing (Liu et al., Understanding R1-Zero-Like Training, 2025)
};
/// Rewards less the mean of their group (Shao et al., DeepSeekMath, 2024, section 4.1.2), scaled. rewards: [B], each
/// `group_size` in a row a group. The deviation is unbiased; a group of one, or of equal rewards, has no advantages.
at::Tensor group_advantages(const at::Tensor& rewards, int64_t group_size, ScaleRewards scale = ScaleRewards::group);

}  // namespace llmtk::rl
