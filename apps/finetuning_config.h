#pragma once
// What all fine-tuning configs say, section by section.

#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/finetuning.h"
#include "models/config.h"
#include "tokenizer_config.h"
#include "train/config.h"
#include "training.h"

namespace llmtk {

struct EvaluationConfig {
  bool predict_with_generate = false;
  int64_t generation_max_length = 128;
  int64_t generation_num_beams = 1;

  template <class V>
  void fields(V& v) {
    v("predict_with_generate", predict_with_generate,
      "causal_lm on answers, seq2seq: let the model write each answer of the evaluation data, and report ROUGE-L and "
      "exact match");
    v("generation_max_length", generation_max_length, "New tokens of an answer at most", config::at_least(1));
    v("generation_num_beams", generation_num_beams, "Beams; 1: the most probable token each time", config::at_least(1));
  }
  void validate(config::Problems& problems) const;
};

struct FinetuneSections {
  models::ModelConfig model;
  TokenizerConfig tokenizer;
  std::string objective = "auto";
  data::FinetuneDataConfig data;
  train::OptimizerConfig optimizer;
  train::SchedulerConfig scheduler;
  train::TrainerConfig trainer;
  EvaluationConfig evaluation;
  SamplesConfig samples;

  template <class V>
  void fields(V& v) {
    v("model", model, "What is trained");
    v("tokenizer", tokenizer, "Text to ids");
    v("objective", objective,
      "What the model learns to give; auto: causal_lm of a decoder, seq2seq of an encoder-decoder, of an encoder what "
      "its head says",
      config::one_of({"auto", "causal_lm", "masked_lm", "seq2seq", "sequence_classification", "token_classification"}));
    v("data", data, "What it is trained on");
    v("optimizer", optimizer, "How weights follow from gradients");
    v("scheduler", scheduler, "The learning rate over the run");
    v("trainer", trainer, "The run");
    v("evaluation", evaluation, "How it is judged");
    v("samples", samples, "What the model writes while it learns");
  }
  void validate(config::Problems& problems) const;
};

/// Fills what a config leaves to the model (the tokenizer beside its weights).
void complete(FinetuneSections& config);

}  // namespace llmtk
