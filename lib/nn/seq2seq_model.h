#pragma once
// The interface between families of encoder-decoders (T5) and everything that trains or generates with them.

#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>
#include <vector>

#include "nn/encoder_model.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"

namespace llmtk::nn {

/// Keys and values of the decoder's own tokens and, made in the first pass, of the encoder's output.
class Seq2SeqCache {
 public:
  using KeysValues = std::pair<at::Tensor, at::Tensor>;  ///< each [B, heads, S, D]

  Seq2SeqCache(int64_t layers, int64_t batch, int64_t heads, int64_t max_length, int64_t head_dim, const Build& build);

  int64_t length() const { return tokens_.length(); }  ///< of the decoder's tokens
  int64_t max_length() const { return tokens_.max_length(); }
  /// Row i becomes what row rows[i] was, for beams. rows: int64 [new batch]; the batch may grow or shrink with it.
  /// What belongs to the encoder moves only where a row now reads another source: beams that swap places among
  /// themselves cost no more than their own tokens.
  void reorder(const at::Tensor& rows);

  // For the families.
  KVCache& tokens() { return tokens_; }
  /// Of the encoder's output in decoder layer `layer`; undefined until the family has put them there.
  KeysValues& encoded(int64_t layer) { return encoded_[static_cast<size_t>(layer)]; }
  bool holds_encoder() const { return encoded_[0].first.defined(); }
  at::Tensor& encoder_mask() { return encoder_mask_; }  ///< as the family's attention takes it; undefined: no padding

 private:
  KVCache tokens_;
  std::vector<KeysValues> encoded_;
  at::Tensor encoder_mask_;
  at::Tensor sources_;  // of each row, the row of the first batch whose encoder output it reads
};

struct DecoderContext {
  /// What encode() gave; with a cache looked at in the first pass alone: the cache keeps what is needed of it.
  at::Tensor encoder_hidden;
  /// [B, S] bool (or 0 and 1), false at padding; default: all true. With a cache, as encoder_hidden.
  at::Tensor encoder_attention_mask;
  at::Tensor attention_mask;      ///< [B, past + T] bool of the decoder's own tokens; default: all true
  Seq2SeqCache* cache = nullptr;  ///< null in training
  /// When set, attention takes the explicit path and appends each layer's weights here: [B, heads, T, past + T], and
  /// [B, heads, T, S].
  std::vector<at::Tensor>* attentions = nullptr;
  std::vector<at::Tensor>* cross_attentions = nullptr;
  std::vector<at::Tensor>* hidden_states = nullptr;  ///< as in EncoderContext
};

class Seq2SeqModel : public Model {
 public:
  static constexpr const char* kKind = "an encoder-decoder";
  const char* kind() const override { return kKind; }
  Head head() const override { return Head::seq2seq_lm; }

  /// input_ids: [B, S] int64. Returns the encoder's last hidden states, [B, S, H], those of embedded virtual tokens
  /// before them.
  virtual at::Tensor encode(const at::Tensor& input_ids, const EncoderContext& context = {}) = 0;
  /// decoder_input_ids: [B, T] int64. Returns the decoder's last hidden states, [B, T, H], as the head takes them.
  virtual at::Tensor decode(const at::Tensor& decoder_input_ids, const DecoderContext& context) = 0;
  virtual Linear& lm_head() = 0;
  at::Tensor logits(const at::Tensor& hidden) { return lm_head().forward(hidden); }  ///< [..., H] -> [..., V]
  /// scale * sum of -log p(target) without holding the logits, as CausalModel::cross_entropy. A scalar, float32.
  at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                           int64_t ignore_index = -100);
  /// log p(target) without holding the logits, not differentiable. hidden: [N, H]; targets: [N] int64. [N] float32.
  at::Tensor log_prob(const at::Tensor& hidden, const at::Tensor& targets);
  /// What the decoder begins with. Throws Error(file) where config.json does not say.
  virtual int64_t decoder_start_token_id() const = 0;
  virtual int64_t pad_token_id() const = 0;  ///< what the decoder sees where a label is not asked for
  /// A cache for `batch` sequences of at most `max_length` decoder tokens, in the model's dtype and on its device.
  std::unique_ptr<Seq2SeqCache> make_cache(int64_t batch, int64_t max_length) const;
};

}  // namespace llmtk::nn
