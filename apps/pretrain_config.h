#pragma once
// What a pretraining config says, section by section.

#include <string>
#include <vector>

#include "config/config.h"
#include "data/pretraining.h"
#include "models/config.h"
#include "tokenizer_config.h"
#include "train/config.h"
#include "training.h"

namespace llmtk {

struct PretrainConfig {
  models::ModelConfig model;
  TokenizerConfig tokenizer;
  data::DataConfig data;
  train::OptimizerConfig optimizer;
  train::SchedulerConfig scheduler;
  train::TrainerConfig trainer;
  SamplesConfig samples;

  template <class V>
  void fields(V& v) {
    v("model", model, "What is trained");
    v("tokenizer", tokenizer, "Text to ids");
    v("data", data, "What it is trained on");
    v("optimizer", optimizer, "How weights follow from gradients");
    v("scheduler", scheduler, "The learning rate over the run");
    v("trainer", trainer, "The run");
    v("samples", samples, "What the model writes while it learns");
  }
  void validate(config::Problems& problems) const;
};

/// Fills what a config leaves to the model (the tokenizer beside its weights).
void complete(PretrainConfig& config);

}  // namespace llmtk
