#pragma once
// What every model is, whatever its kind (causal_model.h, encoder_model.h, seq2seq_model.h).

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "nn/virtual_tokens.h"

namespace llmtk::nn {

/// What stands on top of a model: config.json's `architectures` says which.
enum class Head {
  none,                     ///< BertModel
  causal_lm,                ///< LlamaForCausalLM: [B, T, V]
  seq2seq_lm,               ///< T5ForConditionalGeneration: [B, T, V]
  masked_lm,                ///< BertForMaskedLM: [B, T, V]
  sequence_classification,  ///< BertForSequenceClassification, LlamaForSequenceClassification: [B, labels]
  token_classification,     ///< BertForTokenClassification: [B, T, labels]
};

/// Texts as a classifier reads them.
struct Texts {
  at::Tensor input_ids;       ///< [B, T] int64
  at::Tensor attention_mask;  ///< [B, T] bool (or 0 and 1), false at padding, which stands behind; default: all true
  at::Tensor token_type_ids;  ///< [B, T] int64: which of two texts; default: all 0. Encoders alone
};

class Model : public torch::nn::Module {
 public:
  virtual const char* kind() const = 0;  ///< for messages: "a decoder", "an encoder", ...
  virtual int64_t vocab_size() const = 0;
  virtual int64_t num_positions() const = 0;  ///< longest sequence the model can see, virtual tokens included
  int64_t max_positions() const;              ///< longest text the model can see
  virtual int64_t num_layers() const = 0;
  virtual Head head() const = 0;
  virtual int64_t num_labels() const { return 0; }  ///< of a classification head; otherwise 0
  /// The labels' names: id2label of the config, LABEL_0, LABEL_1, ... where it has none.
  std::vector<std::string> label_names() const;
  /// What a classification head says: [B, labels] of texts, [B, T, labels] of tokens.
  virtual at::Tensor class_logits(const Texts& texts);

  virtual void initialize(uint64_t seed) = 0;  ///< random weights as published for the family
  /// The same of one parameter of a head that files may lack.
  virtual void initialize_parameter(const std::string& name, const at::Tensor& parameter, uint64_t seed);
  virtual void set_gradient_checkpointing(bool on) = 0;
  /// Floating-point operations of one training step per token (forward and backward, without what checkpointing
  /// repeats), for the share of peak: 6 per weight of every matrix product, head included, and 6 * heads * head_dim *
  /// sequence_length per layer for causal attention (half of the full square), twice that where all tokens see all.
  virtual double training_flops_per_token(int64_t sequence_length) const = 0;
  /// What config.json says of this model, "model_type" and "architectures" included.
  virtual nlohmann::ordered_json config() const = 0;
  /// Names under which files may hold a parameter a second time (a tied head), each with that parameter.
  virtual std::map<std::string, at::Tensor> tied_names() { return {}; }
  /// Gives a tied name a parameter of its own (not yet filled), because files hold another matrix under it. False where
  /// the family has no such models.
  virtual bool untie([[maybe_unused]] const std::string& name) { return false; }

  virtual KeyValueShape key_value_shape() const = 0;
  /// What the first layer reads of tokens before it knows their places: int64 [...] -> [..., E], as HF's
  /// get_input_embeddings().
  virtual at::Tensor embed(const at::Tensor& ids) = 0;

  /// What from now on stands before every text; registered as `prompt_encoder`. Null removes it. Caches made before are
  /// of no use after. Throws Error(usage) where no position is left for a text.
  virtual void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens);
  const std::shared_ptr<VirtualTokens>& virtual_tokens() const { return virtual_tokens_; }

  /// Of the parameters.
  c10::ScalarType dtype() const;
  c10::Device device() const;
  int64_t num_parameters() const;  ///< tied ones once

 protected:
  VirtualInputs virtual_inputs() const;  ///< of a pass without a cache

 private:
  std::shared_ptr<VirtualTokens> virtual_tokens_;
};

}  // namespace llmtk::nn
