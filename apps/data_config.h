#pragma once
// What `llmtk data` reads of a training config. The sections that say how to train are checked and otherwise left to
// the command that trains.

#include <nlohmann/json.hpp>
#include <string>

#include "config/config.h"
#include "data/finetuning.h"
#include "models/config.h"
#include "train/config.h"

namespace llmtk {

struct DataTokenizerConfig {
  std::string name_or_path;

  template <class V>
  void fields(V& v) {
    v("name_or_path", name_or_path,
      "A tokenizer file, a folder that holds one, or a name in the local Hugging Face "
      "cache; empty: that of model.name_or_path");
  }
};

struct DataCommandConfig {
  models::ModelConfig model;
  DataTokenizerConfig tokenizer;
  std::string objective = "causal_lm";
  data::FinetuneDataConfig data;
  train::OptimizerConfig optimizer;
  train::SchedulerConfig scheduler;
  train::TrainerConfig trainer;
  nlohmann::ordered_json lora, peft, samples;

  template <class V>
  void fields(V& v) {
    v("model", model, "What is trained");
    v("tokenizer", tokenizer, "Text to ids");
    v("objective", objective, "What the model learns to give",
      config::one_of({"causal_lm", "masked_lm", "seq2seq", "sequence_classification", "token_classification"}));
    v("data", data, "What it is trained on");
    v("optimizer", optimizer, "How weights follow from gradients");
    v("scheduler", scheduler, "The learning rate over the run");
    v("trainer", trainer, "The run");
    v("lora", lora, "For the command that trains");
    v("peft", peft, "For the command that trains");
    v("samples", samples, "For the command that trains");
  }
};

}  // namespace llmtk
