#pragma once
// PPO's loss of some of a rollout's responses.

#include "rl/rollout.h"
#include "train/metric_sums.h"

namespace llmtk::rl {

/// What a step's losses are means over: the tokens of all of its micro-batches.
struct StepTokens {
  double policy = 0;  ///< ResponseBatch::mask()
  double value = 0;   ///< ResponseBatch::value_mask()
};
StepTokens count_tokens(const Rollout& rollout, const at::Tensor& rows);

/// The part that `rows` (int64, some of the step's) have in the loss of their step: policy loss + vf_coef * value loss -
/// entropy_coef * entropy, each a mean over the step's tokens; the parts of a step's micro-batches add up. A scalar,
/// differentiable.
/// Figures, added to `sums` with the tokens that they are means over: loss/policy_avg, policy/approxkl_avg,
/// policy/clipfrac_avg, policy/entropy_avg, val/ratio; loss/value_avg, val/clipfrac_avg. ratio_error: the largest
/// distance of a token's ratio from 1, of earlier calls too.
at::Tensor ppo_loss(const PpoConfig& config, PolicyAndValue& model, const Rollout& rollout, const at::Tensor& rows,
                    const StepTokens& tokens, train::MetricSums& sums, double& ratio_error);

}  // namespace llmtk::rl
