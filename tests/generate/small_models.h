#pragma once
// Small random models and a tokenizer for them.

#include <ATen/core/grad_mode.h>

#include <memory>

#include "fake_tokenizer.h"
#include "models/registry.h"
#include "nn/seq2seq_model.h"

namespace llmtk::test {

inline constexpr int64_t kVocabulary = 90;

inline io::Json with(io::Json config, const io::Json& changes) {
  config.update(changes);
  return config;
}

inline const io::Json kGpt2 = {{"model_type", "gpt2"}, {"vocab_size", kVocabulary},
                               {"n_positions", 48},    {"n_embd", 32},
                               {"n_layer", 2},         {"n_head", 4}};
inline const io::Json kLlama = {{"model_type", "llama"},    {"vocab_size", kVocabulary},
                                {"hidden_size", 32},        {"intermediate_size", 48},
                                {"num_hidden_layers", 2},   {"num_attention_heads", 4},
                                {"num_key_value_heads", 2}, {"max_position_embeddings", 48},
                                {"rms_norm_eps", 1e-5},     {"tie_word_embeddings", false}};

inline const io::Json kT5 = {
    {"model_type", "t5"}, {"vocab_size", kVocabulary}, {"d_model", 32},  {"d_kv", 8},
    {"d_ff", 48},         {"num_layers", 2},           {"num_heads", 4}, {"decoder_start_token_id", 0}};

/// Weights large enough that the next token depends on all that came before.
template <class M = nn::CausalModel>
std::shared_ptr<M> random_model(const io::Json& config) {
  auto model = models::make_model(config, "model", {c10::kFloat, c10::kCPU});
  model->initialize(5);
  const at::NoGradGuard no_grad;
  for (auto& parameter : model->parameters())
    if (parameter.dim() > 1) parameter.mul_(10);
  model->eval();
  return std::dynamic_pointer_cast<M>(model);
}

/// Every id is a word of its own; the first ones are special or the bytes of Chinese characters.
inline FakeTokenizer words() {
  FakeTokenizer tokenizer;
  for (const auto* token : {"<|end|>", "\xE4\xBD", "\xA0\xE5", "\xA5\xBD"}) tokenizer.add(token);
  for (int64_t i = 4; i < kVocabulary - 1; ++i) {
    std::string word = std::to_string(i);
    tokenizer.add(word += " ");
  }
  tokenizer.add("w");
  return tokenizer;
}

}  // namespace llmtk::test
