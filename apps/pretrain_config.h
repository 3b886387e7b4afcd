#pragma once
// What a pretraining config says, section by section.

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/pretraining.h"
#include "data/tokenizer_training.h"
#include "models/config.h"
#include "train/config.h"
#include "training.h"

namespace llmtk {

struct TokenizerConfig {
  std::string name_or_path;
  std::optional<data::TokenizerTrainingConfig> train;

  template <class V>
  void fields(V& v) {
    v("name_or_path", name_or_path,
      "A tokenizer file, a folder that holds one, or a name in the local Hugging Face cache; empty: that of "
      "model.name_or_path. Shards need none");
    v("train", train, "Learn one from data.train first (kept in data.cache_dir, so that it is learnt once)");
  }
  void validate(config::Problems& problems) const {
    if (train && !name_or_path.empty())
      problems.add("train", {.what = "given together with tokenizer.name_or_path", .expected = "one of the two"});
  }
};

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
