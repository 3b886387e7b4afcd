#pragma once
// What a model is taught where it is none of the objectives of `finetune`.

#include <filesystem>
#include <memory>

#include "data/finetuning.h"
#include "nn/model.h"
#include "train/trainer.h"

namespace llmtk {

/// Preferences, rewards, ...
class Teaching {
 public:
  virtual ~Teaching() = default;
  virtual data::Objective objective() const = 0;
  /// With which the model is opened. One that gives numbers to texts gives one.
  virtual nn::Head head() const = 0;
  /// What of the rows is wanted besides.
  virtual void ask_for([[maybe_unused]] data::FinetuneContext& context) const {}
  /// Before the first step, with the model as the run begins and its data opened; checkpoint: to go on from, or empty.
  virtual void begin(std::shared_ptr<nn::Model> model, data::FinetuningData& data,
                     const std::filesystem::path& checkpoint) = 0;
  /// Of the model that begin() got.
  virtual train::LossFunction loss() = 0;
  virtual std::unique_ptr<train::Evaluator> evaluator() = 0;
  virtual train::MetricSums* metrics() { return nullptr; }
  virtual bool dropout() const { return true; }
  /// Into a checkpoint, for begin() of a run that goes on from it.
  virtual void save_state([[maybe_unused]] const std::filesystem::path& folder) const {}
  /// Beside the model, wherever that is saved; load() when a checkpoint's model is taken back.
  virtual void save([[maybe_unused]] const std::filesystem::path& folder) const {}
  virtual void load([[maybe_unused]] const std::filesystem::path& folder) {}
};

}  // namespace llmtk
