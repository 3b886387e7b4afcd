#pragma once
// Group relative policy optimization (Shao et al., DeepSeekMath, 2024) as a method of the policy loop, as TRL's
// GRPOTrainer: several responses to each prompt, each better or worse than its group's mean. No value model.

#include <memory>
#include <vector>

#include "rl/grpo_config.h"
#include "rl/policy_method.h"
#include "text/tokenizer.h"
#include "train/config.h"

namespace llmtk::rl {

/// Responses of a batch: per_device_train_batch_size * steps_per_generation.
int64_t grpo_batch_size(const GrpoConfig& config, const train::TrainerConfig& trainer);
PolicyPlan grpo_plan(const GrpoConfig& config, const train::TrainerConfig& trainer, size_t prompts,
                     const text::Tokenizer& tokenizer);

class Grpo final : public PolicyMethod {
 public:
  /// reference: empty with a beta of 0. keeps_log_probs: whether a batch has several steps, so that the policy is not
  /// always the one that wrote. The config outlives it.
  Grpo(const GrpoConfig& config, std::shared_ptr<nn::CausalModel> policy, ReferenceLogProbs reference,
       bool keeps_log_probs);

  nn::CausalModel& policy() override { return *policy_; }
  void collect(Rollout& rollout, const std::vector<at::Tensor>& parts) override;
  /// reward, reward_std, frac_reward_zero_std, completions/{mean,min,max}_length, completions/clipped_ratio,
  /// completions/mean_terminated_length.
  Json objective(const Rollout& rollout) const override;
  /// Figures: clip_ratio/{low,high,region}_mean, entropy, and with a beta kl.
  at::Tensor loss(const Rollout& rollout, const at::Tensor& rows, const StepSize& step, train::MetricSums& sums,
                  double& ratio_error) override;
  std::vector<std::pair<const char*, const char*>> headline() const override;

 private:
  const GrpoConfig& config_;
  std::shared_ptr<nn::CausalModel> policy_;
  ReferenceLogProbs reference_;
  bool keeps_log_probs_;
};

}  // namespace llmtk::rl
