#pragma once
// The supervised training loop. Every objective is a loss function and a source of batches; the loop knows no model.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/batch.h"
#include "dist/parallel.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/gradients.h"
#include "train/observer.h"
#include "train/optimizer.h"
#include "train/signals.h"
#include "train/state.h"

namespace llmtk::train {

/// scale * (sum of the losses of the batch's target tokens): a scalar, float32. In an evaluation grad mode is off.
using LossFunction = std::function<at::Tensor(const data::Batch& batch, double scale)>;

/// How a model is judged on the evaluation data where its loss does not say all.
class Evaluator {
 public:
  virtual ~Evaluator() = default;
  virtual void begin() = 0;
  /// As LossFunction with scale 1; takes down what the metrics need of the batch.
  virtual at::Tensor loss(const data::Batch& batch) = 0;
  /// {name: number}, of the batches since begin().
  virtual nlohmann::ordered_json metrics() = 0;
  /// Whether exp(loss) is a perplexity.
  virtual bool has_perplexity() const { return true; }
};

/// Gives the config of a checkpoint the defaults of keys that it was saved without.
using AddDefaults = std::function<void(nlohmann::ordered_json& config)>;

/// What the loop is given.
struct Task {
  std::shared_ptr<torch::nn::Module> module;
  LossFunction loss;
  Evaluator* evaluator = nullptr;  ///< may be null: the loss alone is reported
  data::BatchSource* train = nullptr;
  data::BatchSource* eval = nullptr;  ///< may be null
  dist::Parallel* parallel = nullptr;
  Observer* observer = nullptr;                       ///< may be null
  std::function<void(const fs::path&)> save_model;    ///< writes the model's or adapter's folder
  std::function<void(const fs::path&)> load_weights;  ///< reads what save_model wrote, strictly; with saves_all alone
  std::function<void(int64_t step)> sample;           ///< may be empty; the model is in evaluation mode, grad mode off
  /// save_model writes every parameter as it is. False: what it writes is for other programs, and checkpoints hold the
  /// trained parameters beside it.
  bool saves_all = true;
  bool converts = true;                ///< parameters become trainer.dtype; false: each stays what it is
  LearningRates learning_rates;        ///< of parameters with one of their own
  MetricSums* metrics = nullptr;       ///< where `loss` adds what else is reported; may be null
  bool dropout = true;                 ///< false: the module stays in evaluation mode
  /// Writes into a checkpoint what a run that goes on from it needs besides; may be empty. load_state is called when a
  /// checkpoint's weights are taken back, to go on or as the best ones.
  std::function<void(const fs::path&)> save_state, load_state;
  nlohmann::ordered_json run_config;           ///< the resolved config, kept in checkpoints and compared on resume
  AddDefaults add_defaults;                    ///< may be empty
  double flops_per_token = 0, peak_flops = 0;  ///< for the share of the peak; 0: not reported
};

struct RunResult {
  enum class End { finished, stopped_early, interrupted } end = End::finished;
  int64_t step = 0;
  int64_t tokens = 0, target_tokens = 0;
  double seconds = 0;
  std::optional<double> last_loss, eval_loss, best_eval_loss;
  std::optional<double> best_metric;  ///< of TrainerConfig::metric_for_best_model
  int64_t best_step = -1;             ///< that it belongs to
  nlohmann::ordered_json eval_metrics;  ///< of the last evaluation of this process; null: none
  int64_t nonfinite_steps = 0;
  std::string checkpoint;  ///< the newest
  int signal = 0;          ///< interrupted by it
};

/// What `state` says of a run that ended; the figures of evaluations beside the loss are the loop's to add.
RunResult result_of(const LoopState& state, const fs::path& output_dir, RunResult::End end, int signal);

/// What stands in an output folder already, and where a run begins.
struct Start {
  std::optional<CheckpointFolder> checkpoint;  ///< resume from here
  bool clear = false;                          ///< delete the run that stands there
};
/// Reads resume_from_checkpoint and overwrite_output_dir against what is on disk, and changes nothing. Throws
/// Error(usage) when the folder holds a run and neither is said, or when there is nothing to resume from; Error(file)
/// for a checkpoint asked for by path that is not whole.
Start find_start(const TrainerConfig& config);

/// Optimizer steps of a run: max_steps, or what the source's batches come to where that is less or max_steps is not
/// said; 0 when nobody knows. Throws Error(usage) when the schedule needs the number and nobody knows it.
int64_t total_steps(const TrainerConfig& config, const SchedulerConfig& scheduler, const data::BatchSource& source);

/// What evaluations are judged by, as metric_for_best_model and greater_is_better say.
struct BestMetric {
  std::string name;
  bool greater_is_better;

  bool better(double value, double than) const { return greater_is_better ? value > than : value < than; }
};
/// evaluator: may be null. Throws Error(usage) for a name that no evaluation of this run gives.
BestMetric best_metric(const TrainerConfig& config, Evaluator* evaluator);

/// Warns where a run of `steps` steps is shorter than max_steps, than its warm-up or than its decay.
void warn_of_length(const TrainerConfig& config, const SchedulerConfig& scheduler, int64_t steps);

/// The trainer's state of a checkpoint, once its config agrees with the run's (Task::run_config): differences that a
/// run can bear are warnings. Throws Error(usage) for another model or other data, Error(file) for no such state.
nlohmann::ordered_json read_trainer_state(const CheckpointFolder& checkpoint, const nlohmann::ordered_json& run_config,
                                          const AddDefaults& add_defaults = {});

/// In a checkpoint: the loop's state, the place in the data, the config.
inline constexpr const char* kStateFile = "trainer_state.json";

class RunFiles;

class Trainer {
 public:
  /// Converts the module's parameters to trainer.dtype (make_optimizer). The module is on its device already.
  Trainer(const TrainerConfig& trainer, const OptimizerConfig& optimizer, const SchedulerConfig& scheduler, Task task);
  ~Trainer();

  /// Trains to the end, to an early stop or to a signal; writes checkpoints and the final model. Throws Error(diverged)
  /// after too many steps in a row without a finite loss, Error(file) when the disk gives out (the checkpoints before
  /// stay good).
  RunResult run(const Start& start);

 private:
  enum class Step { done, no_data, interrupted };

  void resume(const CheckpointFolder& checkpoint);
  Step train_step(const StopSignals& signals);
  bool fetch(std::vector<data::Batch>& batches);
  void note_metrics();
  void report(double loss, double learning_rate, double norm, double seconds, int64_t tokens);
  bool evaluate(const StopSignals& signals);
  void note_evaluation(double loss, int64_t targets);
  double metric_of(double loss) const;
  void sample();
  void save();
  void save_final();
  bool wants_stop(const StopSignals& signals) const;
  bool finished() const;
  RunResult result(RunResult::End end, int signal) const;

  TrainerConfig config_;
  OptimizerConfig optimizer_config_;
  Task task_;
  BestMetric best_metric_;
  int64_t total_steps_;
  Schedule schedule_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Gradients> gradients_;
  std::unique_ptr<RunFiles> files_;
  c10::Device device_;
  LoopState state_;
  nlohmann::ordered_json eval_start_, eval_metrics_;
  bool data_ended_ = false;
  int64_t saved_step_ = -1;
  // Since the last log line of this process.
  double log_seconds_ = 0;
  int64_t log_tokens_ = 0;
};

}  // namespace llmtk::train
