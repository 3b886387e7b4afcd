#pragma once
// The loop of policies: one writes responses, rewards say what they are worth, and some passes over them teach it, in a
// way that PolicyMethod has. The other loop is train::Trainer; what both do with optimizer, checkpoints and signals is
// train/update.h and train/run_files.h.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "rl/policy_method.h"
#include "rl/prompts.h"
#include "rl/rewards.h"
#include "rl/rollout.h"
#include "text/tokenizer.h"
#include "train/run_files.h"
#include "train/signals.h"
#include "train/trainer.h"
#include "train/update.h"

namespace llmtk::rl {

/// In a checkpoint that was saved in the middle of a batch: the responses and what is learnt from them.
inline constexpr const char* kRolloutFile = "rollout.safetensors";

struct PolicyParts {
  PolicyMethod* method = nullptr;
  const Prompts* prompts = nullptr;
  bool shuffle_prompts = true;
  const Rewards* rewards = nullptr;
  const text::Tokenizer* tokenizer = nullptr;
  /// Told of num_samples responses of each batch.
  std::function<void(int64_t step, int64_t slot, const Response& response, double score)> on_sample;
};

/// A step is an optimizer step; a batch of responses has PolicyPlan::steps_per_batch() of them, those that target_kl leaves
/// out counted. Metrics are logged once a batch. Dropout stays off.
class PolicyTrainer {
 public:
  /// Of the task its module, ways to save and load, parallel (one process), observer, run_config, learning_rates and
  /// converts are used. All configs and parts outlive it.
  PolicyTrainer(PolicyPlan plan, const train::TrainerConfig& trainer, const train::OptimizerConfig& optimizer,
                const train::SchedulerConfig& scheduler, train::Task task, PolicyParts parts);

  /// To the end or to a signal. Throws what rewards throw; Error(diverged) as train::Trainer.
  train::RunResult run(const train::Start& start);
  /// Of the last batch; null before there is one.
  const nlohmann::ordered_json& figures() const { return figures_; }

 private:
  int64_t batch_number() const { return state_.step / plan_.steps_per_batch(); }  ///< of the step that comes next
  bool ends_batch(int64_t step) const { return step % plan_.steps_per_batch() == 0 || step == plan_.steps(); }
  int64_t first_episode() const;
  bool save_is_due() const;
  const Prompt& prompt_of(int64_t episode) const;
  std::vector<Response> write_responses(const train::StopSignals& signals);
  void collect(const train::StopSignals& signals);
  std::vector<at::Tensor> micro_batches(int64_t step) const;
  void train_step(const train::StopSignals& signals);
  bool too_far(double approx_kl);
  void note_ratio(double error);
  void show_samples() const;
  void finish_batch(const train::Update& last);
  train::StepReport step_report(const train::Update& update) const;
  void save();
  void resume(const train::CheckpointFolder& checkpoint);

  PolicyPlan plan_;
  const train::TrainerConfig& trainer_;
  const train::OptimizerConfig& optimizer_config_;
  train::Task task_;
  PolicyParts parts_;
  train::Schedule schedule_;
  std::unique_ptr<train::Optimizer> optimizer_;
  std::unique_ptr<train::Gradients> gradients_;
  std::unique_ptr<train::RunFiles> files_;
  c10::Device device_;
  train::LoopState state_;
  std::optional<Rollout> rollout_;
  nlohmann::ordered_json objective_, figures_;
  int64_t saved_step_ = -1;
  bool ratio_told_ = false;
  double batch_seconds_ = 0;
};

}  // namespace llmtk::rl
