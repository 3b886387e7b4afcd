#include "peft/prompt.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>

#include "core/error.h"
#include "nn/init.h"
#include "nn/linear.h"
#include "nn/seq2seq_model.h"
#include "peft/head.h"

namespace llmtk::peft {

void PromptTuningConfig::validate(config::Problems& problems) const {
  const bool text = prompt_tuning_init == "TEXT";
  if (text && prompt_tuning_init_text.empty())
    problems.add("prompt_tuning_init_text", {.what = "is missing", .hint = "prompt_tuning_init: TEXT begins with it"});
  if (!text && !prompt_tuning_init_text.empty())
    problems.add("prompt_tuning_init_text", {.what = "has no influence without prompt_tuning_init: TEXT"});
}

namespace {

int64_t embedding_width(nn::Model& model) {
  const at::NoGradGuard no_grad;
  return model.embed(at::zeros({1}, at::TensorOptions().dtype(at::kLong).device(model.device()))).size(-1);
}

/// The tokens whose embeddings are begun with: int64 [rows].
at::Tensor first_tokens(const nn::Model& model, const PromptTuningConfig& config, int64_t rows, uint64_t seed,
                        const std::vector<int64_t>& text) {
  if (config.prompt_tuning_init == "SAMPLE_VOCAB")
    return at::randint(model.vocab_size(), {rows}, at::detail::createCPUGenerator(seed), at::kLong);
  if (text.empty())
    throw Error(Exit::usage, {.what = "the text that the virtual tokens begin with has no tokens",
                              .where = "prompt_tuning.prompt_tuning_init_text",
                              .got = "'" + config.prompt_tuning_init_text + "'"});
  return at::tensor(text, at::kLong).index_select(0, at::arange(rows, at::kLong) % static_cast<int64_t>(text.size()));
}

}  // namespace

PromptTuning::PromptTuning(nn::Model& model, const PromptTuningConfig& config) : config_(config) {
  const int64_t rows = (dynamic_cast<nn::Seq2SeqModel*>(&model) ? 2 : 1) * length();
  const auto embedding = register_module("embedding", std::make_shared<torch::nn::Module>());
  embedding_ = embedding->register_parameter(
      "weight", nn::Build{at::kFloat, model.device()}.empty({rows, embedding_width(model)}));
}

void apply(nn::Model& model, const PromptTuningConfig& config, uint64_t seed, const std::vector<int64_t>& text) {
  LLMTK_CHECK(text.empty() || config.prompt_tuning_init == "TEXT", "tokens without a text to begin with");
  const auto prompt = std::make_shared<PromptTuning>(model, config);
  const at::Tensor& table = prompt->table();
  if (config.prompt_tuning_init == "RANDOM") {
    nn::init_normal(table, 1.0, seed, "embedding.weight");
  } else {
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = first_tokens(model, config, table.size(0), seed, text);
    table.copy_(model.embed(tokens.to(model.device())));
  }
  train_head_alone(model);
  model.set_virtual_tokens(prompt);
}

}  // namespace llmtk::peft
