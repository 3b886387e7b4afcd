#pragma once
// What BERT and RoBERTa are both made of: the keys of their configs, the layers (post-norm transformer encoder), the
// pooler. The families differ in positions, heads and names.
//
// Shapes: B rows, T tokens, H hidden_size, N num_attention_heads, D = H / N, V vocab_size.

#include <optional>
#include <span>
#include <string>

#include "io/json.h"
#include "nn/activation.h"
#include "nn/encoder_attention.h"
#include "nn/linear.h"
#include "nn/norm.h"

namespace llmtk::models {

/// What config.json's `architectures` and the files' tensors are called in a family of encoders.
struct EncoderNames {
  const char* model_type;
  const char* class_prefix;  ///< "Bert" of BertForMaskedLM
  const char* base_prefix;   ///< "bert.": of the encoder's tensors where a head stands on it
  /// Tensors of all heads and of the pooler, without base_prefix. A model has some of them; files may hold more.
  std::span<const char* const> head_tensors;

  /// "BertForMaskedLM", or "BertModel".
  std::string class_name(nn::Head head) const;
  bool is_head_tensor(std::string name) const;  ///< with or without base_prefix
};

struct BertConfig {
  int64_t vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size;
  int64_t max_position_embeddings, type_vocab_size;
  nn::Activation hidden_act = nn::Activation::gelu;
  double hidden_dropout_prob = 0.1, attention_probs_dropout_prob = 0.1;
  double classifier_dropout = 0.1;  ///< hidden_dropout_prob where config.json has null
  double layer_norm_eps = 1e-12;
  double initializer_range = 0.02;
  int64_t pad_token_id = -1;  ///< its row of the token table gets no gradient; -1: none
  nn::Head head = nn::Head::none;
  int64_t num_labels = 2;  ///< the size of id2label
  io::Json raw;            ///< config.json itself: what is saved again

  /// Throws Error(file) naming `where` and the key.
  static BertConfig from_hf(const io::Json& json, const std::string& where, const io::TypedKeys* typed_keys,
                            const EncoderNames& names, int64_t default_pad_token_id);
};

/// dense -> dropout -> LayerNorm(residual + .)
struct BertOutput : torch::nn::Module {
  BertOutput(int64_t width, const BertConfig& c, const nn::Build& build);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& residual);

  double hidden_dropout_prob;
  std::shared_ptr<nn::Linear> dense;
  std::shared_ptr<nn::LayerNorm> LayerNorm;
};

struct BertSelfAttention;

struct BertAttention : torch::nn::Module {
  BertAttention(const BertConfig& c, const nn::Build& build);
  at::Tensor forward(const at::Tensor& x, const nn::EncoderLayerContext& context);

  std::shared_ptr<BertSelfAttention> self;
  std::shared_ptr<BertOutput> output;
};

/// The one matrix that HF calls `dense` in a module of its own: BertIntermediate, BertPooler.
struct BertDense : torch::nn::Module {
  BertDense(int64_t in, int64_t out, const nn::Build& build);
  at::Tensor forward(const at::Tensor& x) { return dense->forward(x); }

  std::shared_ptr<nn::Linear> dense;
};

struct BertLayer : torch::nn::Module {
  BertLayer(const BertConfig& c, const nn::Build& build);
  at::Tensor forward(const at::Tensor& x, const nn::EncoderLayerContext& context);  ///< [B, T, H] -> [B, T, H]

  nn::Activation hidden_act;
  std::shared_ptr<BertAttention> attention;
  std::shared_ptr<BertDense> intermediate;
  std::shared_ptr<BertOutput> output;
};

struct BertEmbeddings : torch::nn::Module {
  BertEmbeddings(const BertConfig& c, int64_t position_padding, const nn::Build& build);
  /// position_ids: [B or 1, P + T]; token_type_ids: [B, T] or undefined; virtual_embeddings: [P, H] or undefined.
  /// Returns [B, P + T, H].
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& position_ids, const at::Tensor& token_type_ids,
                     const at::Tensor& virtual_embeddings);

  double hidden_dropout_prob;
  std::shared_ptr<nn::Embedding> word_embeddings, position_embeddings, token_type_embeddings;
  std::shared_ptr<nn::LayerNorm> LayerNorm;
};

/// The encoder and its pooler, under base_prefix where a head stands on it, and the classifier of tokens. Families add
/// positions and the other heads.
class BertBase : public nn::EncoderModel {
 public:
  /// pooler: whether the class has one (a model without a head always does). position_padding: the row of the position
  /// table that stands for padding, -1 for none.
  BertBase(BertConfig config, const EncoderNames& names, bool pooler, int64_t position_padding, const nn::Build& build);

  at::Tensor forward(const at::Tensor& input_ids, const nn::EncoderContext& context) override;
  at::Tensor pooled(const at::Tensor& hidden, const at::Tensor& attention_mask) override;
  nn::Head head() const override { return config_.head; }
  int64_t num_labels() const override;
  at::Tensor logits(const at::Tensor& hidden, const at::Tensor& attention_mask) override;
  at::Tensor token_cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                                 int64_t ignore_index) override;
  void remove_pooler() override;

  int64_t vocab_size() const override { return config_.vocab_size; }
  nn::KeyValueShape key_value_shape() const override {
    return {config_.num_hidden_layers, config_.num_attention_heads, config_.hidden_size / config_.num_attention_heads};
  }
  at::Tensor embed(const at::Tensor& ids) override { return embeddings_->word_embeddings->forward(ids); }
  int64_t num_layers() const override { return config_.num_hidden_layers; }
  void set_gradient_checkpointing(bool on) override { gradient_checkpointing_ = on; }
  double training_flops_per_token(int64_t sequence_length) const override;
  /// Normal with initializer_range, norms 1, biases and the rows of padding 0, as HF's _init_weights.
  void initialize_parameter(const std::string& name, const at::Tensor& parameter, uint64_t seed) override;
  io::Json config() const override;

 protected:
  /// real: as in EncoderLayerContext. Returns [B or 1, T].
  virtual at::Tensor default_positions(const at::Tensor& input_ids, const at::Tensor& real) const = 0;
  /// Of the masked LM's head: what it makes of hidden states before its decoder, [..., H], and the decoder, [V, H].
  virtual at::Tensor masked_lm_transform(const at::Tensor& hidden) = 0;
  virtual nn::Linear& masked_lm_decoder() = 0;
  /// Of the head that classifies texts: [B, T, H] -> [B, labels].
  virtual at::Tensor sequence_logits(const at::Tensor& hidden, const at::Tensor& attention_mask) = 0;
  /// [B, T, H] -> [B, H]: each row's first token, a virtual one where those are embedded.
  at::Tensor first_token(const at::Tensor& hidden, const at::Tensor& attention_mask) const;
  const at::Tensor& word_table() const { return embeddings_->word_embeddings->weight; }
  at::Tensor head_dropout(const at::Tensor& x) const;  ///< classifier_dropout

  BertConfig config_;

 private:
  at::Tensor positions(const at::Tensor& input_ids, const nn::EncoderContext& context,
                       const nn::EncoderLayerContext& shared) const;

  const EncoderNames& names_;
  int64_t position_padding_;
  bool gradient_checkpointing_ = false;
  torch::nn::Module* base_;  // this, or the module under base_prefix
  std::shared_ptr<BertEmbeddings> embeddings_;
  std::shared_ptr<nn::Layers<BertLayer>> layers_;
  std::shared_ptr<BertDense> pooler_;
  std::shared_ptr<nn::Linear> token_classifier_;
};

/// The parameter that a tensor of a file means: old files say gamma and beta for LayerNorm's weight and bias, and carry
/// position_ids as a buffer. nullopt: not a weight.
std::optional<std::string> bert_encoder_parameter_name(const std::string& name);

}  // namespace llmtk::models
