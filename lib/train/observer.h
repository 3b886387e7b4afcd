#pragma once
// What a training loop tells about itself. No LibTorch here.

#include <cstdint>
#include <nlohmann/json.hpp>

namespace llmtk::train {

/// What one log line says. Means are over the steps since the line before.
struct StepReport {
  int64_t step = 0, total_steps = 0;  ///< total_steps: 0 when the data decides and does not say
  double loss = 0;                    ///< per target token
  double learning_rate = 0;
  double grad_norm = 0;  ///< of the last step, before clipping
  double tokens_per_second = 0;
  double share_of_peak = 0;               ///< of a large matrix product's rate; 0: not known
  int64_t tokens = 0, target_tokens = 0;  ///< since the run's beginning
  double seconds = 0;                     ///< spent training, since the run's beginning
  nlohmann::ordered_json metrics;         ///< {name: mean} of a logged line, what the loss says beside itself; or null
};

struct EvalReport {
  int64_t step = 0;
  double loss = 0, perplexity = 0;
  int64_t target_tokens = 0;
  bool best = false;
  nlohmann::ordered_json metrics;  ///< {name: number}, what an Evaluator says; null: nothing
};

/// Who is told how it goes: progress line, metrics file, charts. Every call comes from the training thread.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void began(int64_t step, int64_t total_steps) { (void)step, (void)total_steps; }
  /// After every optimizer step; cheap. report.loss is that step's own.
  virtual void stepped(const StepReport& report) { (void)report; }
  /// Every logging_steps.
  virtual void logged(const StepReport& report) { (void)report; }
  virtual void evaluated(const EvalReport& report) { (void)report; }
  /// After the last step, when the final model is written.
  virtual void finished() {}
  /// Before a checkpoint is written: what was reported must outlive a crash.
  virtual void sync() {}
};

}  // namespace llmtk::train
