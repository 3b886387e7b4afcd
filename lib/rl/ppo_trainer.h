#pragma once
// The loop of PPO (Schulman et al. 2017; Ouyang et al. 2022): the policy writes responses, rewards say what they are
// worth, and some passes over them teach policy and values. The other loop is train::Trainer; what both do with
// optimizer, checkpoints and signals is train/update.h and train/run_files.h.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rl/kl.h"
#include "rl/ppo_objective.h"
#include "rl/prompts.h"
#include "rl/rewards.h"
#include "rl/rollout.h"
#include "text/tokenizer.h"
#include "train/run_files.h"
#include "train/trainer.h"
#include "train/update.h"

namespace llmtk::rl {

/// In a checkpoint that was saved in the middle of a batch: the responses and what is learnt from them.
inline constexpr const char* kRolloutFile = "rollout.safetensors";

struct PpoParts {
  std::shared_ptr<PolicyAndValue> model;  ///< in evaluation mode: without dropout
  ReferenceLogProbs reference;
  const Prompts* prompts = nullptr;
  bool shuffle_prompts = true;
  const Rewards* rewards = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  /// Told of ppo.num_samples responses of each batch.
  std::function<void(int64_t step, const Response& response, double score)> on_sample;
};

/// Responses of a batch, and batches of a run.
int64_t ppo_batch_size(const train::TrainerConfig& trainer);
int64_t ppo_batches(const PpoConfig& config, const train::TrainerConfig& trainer, size_t prompts);

/// A step is an optimizer step; a batch of responses has num_ppo_epochs * num_mini_batches of them, those that target_kl
/// leaves out counted. The learning rate follows the batches, as TRL's does. Metrics are logged once a batch.
class PpoTrainer {
 public:
  /// Of the task its module (parts.model), ways to save and load, parallel (one process), observer, run_config,
  /// learning_rates and converts are used. All configs and parts outlive it.
  PpoTrainer(const PpoConfig& config, const train::TrainerConfig& trainer, const train::OptimizerConfig& optimizer,
             const train::SchedulerConfig& scheduler, train::Task task, PpoParts parts);

  /// To the end or to a signal. Throws what rewards throw; Error(diverged) as train::Trainer.
  train::RunResult run(const train::Start& start);
  /// Of the last batch; null before there is one.
  const nlohmann::ordered_json& figures() const { return figures_; }

 private:
  int64_t steps_per_batch() const { return config_.num_ppo_epochs * config_.num_mini_batches; }
  int64_t batch_number() const { return state_.step / steps_per_batch(); }  ///< of the step that comes next
  bool save_is_due() const;
  std::vector<Response> write_responses();
  void collect();
  at::Tensor rows_of_step() const;
  void train_step();
  bool too_far(double approx_kl);
  void note_ratio(double error);
  void show_samples() const;
  void finish_batch(const train::Update& last);
  train::StepReport step_report(const train::Update& update) const;
  void save();
  void resume(const train::CheckpointFolder& checkpoint);

  const PpoConfig& config_;
  const train::TrainerConfig& trainer_;
  const train::OptimizerConfig& optimizer_config_;
  train::Task task_;
  PpoParts parts_;
  int64_t batches_;
  train::Schedule schedule_;
  std::unique_ptr<train::Optimizer> optimizer_;
  std::unique_ptr<train::Gradients> gradients_;
  std::unique_ptr<train::RunFiles> files_;
  c10::Device device_;
  train::LoopState state_;
  KlController kl_;
  std::optional<Rollout> rollout_;
  std::vector<double> ratios_;  ///< of the batch's steps
  nlohmann::ordered_json objective_, figures_;
  int64_t saved_step_ = -1;
  bool ratio_told_ = false;
  double batch_seconds_ = 0;
};

}  // namespace llmtk::rl
