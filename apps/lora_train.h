#pragma once
// llmtk lora CONFIG: training an adapter of low rank.

#include <memory>

#include "finetuning.h"

namespace llmtk {

/// Adds the config and its options; runs the training.
struct LoraTraining {
  TrainingOptions options;
  void add_to(CLI::App& app) { add_training_options(app, options); }
  int run(const CommonOptions& common) const;
};

}  // namespace llmtk
