#pragma once
// PPO (Schulman et al. 2017; Ouyang et al. 2022) as a method of the policy loop.

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "rl/kl.h"
#include "rl/policy_method.h"
#include "rl/ppo_config.h"
#include "text/tokenizer.h"
#include "train/config.h"

namespace llmtk::rl {

/// Responses of a batch.
int64_t ppo_batch_size(const train::TrainerConfig& trainer);
PolicyPlan ppo_plan(const PpoConfig& config, const train::TrainerConfig& trainer, size_t prompts,
                    const text::Tokenizer& tokenizer);

/// What policy and reference say of the responses, read in `parts`, and from it and from the scores rewards, advantages
/// and returns, as TRL's PPOTrainer has them. kl_coef: as it is now. No gradients. known: what model.read() says of the
/// only part, where that is there already.
void fill_ppo_rollout(const PpoConfig& config, double kl_coef, PolicyAndValue& model,
                      const ReferenceLogProbs& reference, const std::vector<at::Tensor>& parts, Rollout& rollout,
                      const Readings* known = nullptr);

/// objective/kl, objective/entropy, objective/non_score_reward, objective/rlhf_reward, objective/scores: of whole
/// responses, means over them.
nlohmann::ordered_json ppo_objective(const PpoConfig& config, double kl_coef, const Rollout& rollout);

/// policy loss + vf_coef * value loss - entropy_coef * entropy, each a mean over the step's tokens; `rows` and the rest
/// as PolicyMethod::loss(). Figures: loss/policy_avg, policy/approxkl_avg, policy/clipfrac_avg, policy/entropy_avg,
/// val/ratio; loss/value_avg, val/clipfrac_avg.
at::Tensor ppo_loss(const PpoConfig& config, PolicyAndValue& model, const Rollout& rollout, const at::Tensor& rows,
                    const StepSize& step, train::MetricSums& sums, double& ratio_error);
/// Of what model.read() says of these rows, entropies included.
at::Tensor ppo_loss(const PpoConfig& config, const Readings& now, const Rollout& rollout, const at::Tensor& rows,
                    const StepSize& step, train::MetricSums& sums, double& ratio_error);

class Ppo final : public PolicyMethod {
 public:
  /// The config outlives it.
  Ppo(const PpoConfig& config, std::shared_ptr<PolicyAndValue> model, ReferenceLogProbs reference);

  nn::CausalModel& policy() override { return model_->policy(); }
  /// Where the first pass reads all responses at once, they are read here for it too: with gradients, which loss() then
  /// takes. It would read the same to the bit, as the first batch shows, in which both are read.
  void collect(Rollout& rollout, const std::vector<at::Tensor>& parts) override;
  Json objective(const Rollout& rollout) const override;
  at::Tensor loss(const Rollout& rollout, const at::Tensor& rows, const StepSize& step, train::MetricSums& sums,
                  double& ratio_error) override;
  void stepped(const Json& means) override;
  void finish(Json& figures, int64_t responses, double learning_rate) override;
  std::vector<std::pair<const char*, const char*>> headline() const override;
  Json state() const override;
  void restore(const Json& state) override;

 private:
  const PpoConfig& config_;
  std::shared_ptr<PolicyAndValue> model_;
  ReferenceLogProbs reference_;
  KlController kl_;
  std::optional<Readings> kept_;
  bool has_read_ = false;
  std::vector<double> ratios_;  // of the batch's steps
};

}  // namespace llmtk::rl
