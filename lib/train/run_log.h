#pragma once
// Everything that a run says: the progress line, metrics.jsonl, TensorBoard's event file, the picture of the loss.

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/progress.h"
#include "train/loss_curve.h"
#include "train/metrics.h"
#include "train/observer.h"
#include "train/tensorboard.h"

namespace llmtk::train {

class RunLog : public Observer {
 public:
  /// Files are opened in began(), when the folder holds nothing of an earlier run any more. `resolved_config` becomes
  /// config.resolved.yaml; empty: none is written.
  RunLog(std::filesystem::path output_dir, std::string title, std::string resolved_config);
  ~RunLog() override;

  void began(int64_t step, int64_t total_steps) override;
  void stepped(const StepReport& report) override;
  void logged(const StepReport& report) override;
  void evaluated(const EvalReport& report) override;
  /// A text that the model wrote; the prompt is its beginning.
  void sampled(int64_t step, const std::string& prompt, const std::string& text);
  /// One of the texts that a policy wrote, and what it was worth; slot: which of those that are shown.
  void rated(int64_t step, int64_t slot, const std::string& prompt, const std::string& text, double reward);
  void sync() override;
  void finished() override;

 private:
  void show(const StepReport& report, double loss, bool logging_step);
  void add(Row row);
  void draw(const Row& row);  // into the event file and the picture
  void to_tensorboard(const Row& row);

  std::filesystem::path output_dir_;
  std::string title_, resolved_config_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<MetricsFile> metrics_;
  std::unique_ptr<EventFile> events_;
  LossCurve curve_;
  double shown_loss_ = 0;  ///< a running mean: single steps jump about
  bool any_loss_ = false;
};

}  // namespace llmtk::train
