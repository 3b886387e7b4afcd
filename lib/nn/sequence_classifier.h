#pragma once
// Classifiers of texts over language models: a decoder's or an encoder-decoder's layers under a head that gives numbers
// to a whole text, as HF's LlamaForSequenceClassification, GPT2ForSequenceClassification, T5ForSequenceClassification
// have it. With one label on a decoder such a model is a reward model, and its scores of all tokens are values.

#include <ATen/core/Tensor.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "nn/causal_model.h"
#include "nn/linear.h"
#include "nn/seq2seq_model.h"

namespace llmtk::nn {

struct ClassifierOptions {
  nlohmann::ordered_json config;  ///< config.json of the classifier
  int64_t num_labels = 2;
  double initializer_range = 0.02;  ///< deviation of the head's random weights
  int64_t pad_token_id = -1;        ///< decoders: a text's last token is the last that is not this one; -1: none
  int64_t eos_token_id = -1;        ///< encoder-decoders: a text is judged where the decoder has read this one
  double dropout = 0;               ///< encoder-decoders: of the head
};

/// What both have in common. The body is a language model made without its head (Build::lm_head); its layers are this
/// model's own, under the names that they have there or below `under`.
class SequenceClassifier : public Model {
 public:
  static constexpr const char* kKind = "a classifier of texts";
  const char* kind() const override { return kKind; }
  Head head() const override { return Head::sequence_classification; }
  int64_t num_labels() const override { return options_.num_labels; }

  int64_t vocab_size() const override { return body_->vocab_size(); }
  int64_t num_positions() const override { return body_->num_positions(); }
  int64_t num_layers() const override { return body_->num_layers(); }
  void set_gradient_checkpointing(bool on) override { body_->set_gradient_checkpointing(on); }
  double training_flops_per_token(int64_t sequence_length) const override;
  nlohmann::ordered_json config() const override { return options_.config; }
  std::map<std::string, at::Tensor> tied_names() override;
  KeyValueShape key_value_shape() const override { return body_->key_value_shape(); }
  at::Tensor embed(const at::Tensor& ids) override { return body_->embed(ids); }
  void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) override;
  void train(bool on = true) override;
  /// The body's start, and the head normal with initializer_range, its biases 0.
  void initialize(uint64_t seed) override;
  void initialize_parameter(const std::string& name, const at::Tensor& parameter, uint64_t seed) override;

 protected:
  SequenceClassifier(std::shared_ptr<Model> body, const Linear& lm_head, const std::string& under,
                     ClassifierOptions options);

  ClassifierOptions options_;

 private:
  std::shared_ptr<Model> body_;
  double lm_head_size_;
  std::string under_;
};

/// `score`, [labels, H] without a bias, on a text's last token.
class DecoderClassifier final : public SequenceClassifier {
 public:
  DecoderClassifier(std::shared_ptr<CausalModel> body, ClassifierOptions options, const Build& build);

  /// As CausalModel::forward: [B, T] -> [B, T, H].
  at::Tensor forward(const at::Tensor& input_ids, const ForwardContext& context = {});
  /// The head at every token: [..., H] -> [..., labels].
  at::Tensor scores(const at::Tensor& hidden) { return score_->forward(hidden); }
  /// The place of each row's last token that is neither padding nor pad_token_id, wherever padding stands: int64 [B].
  /// 0 for a row without one. (modeling_layers.GenericForSequenceClassification)
  at::Tensor last_tokens(const at::Tensor& input_ids, const at::Tensor& attention_mask = {}) const;
  /// The head at those places: hidden [B, T, H] -> [B, labels].
  at::Tensor logits(const at::Tensor& hidden, const at::Tensor& input_ids, const at::Tensor& attention_mask = {});
  at::Tensor class_logits(const Texts& texts) override;
  bool depends_on_length() const { return body_->depends_on_length(); }

 private:
  std::shared_ptr<CausalModel> body_;
  std::shared_ptr<Linear> score_;
};

/// dropout -> dense -> tanh -> dropout -> out_proj of what the decoder says where it has read the text's last
/// eos_token_id; it reads the text itself, behind decoder_start_token_id (T5ForSequenceClassification).
class Seq2SeqClassifier final : public SequenceClassifier {
 public:
  /// The layers' names begin with "transformer.".
  Seq2SeqClassifier(std::shared_ptr<Seq2SeqModel> body, ClassifierOptions options, const Build& build);

  /// Throws Error(data) for a text without eos_token_id.
  at::Tensor class_logits(const Texts& texts) override;
  /// Throws Error(usage): neither transformers nor peft puts any before such a model's texts.
  void set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) override;

 private:
  std::shared_ptr<Seq2SeqModel> body_;
  std::shared_ptr<Linear> dense_, out_proj_;
};

}  // namespace llmtk::nn
