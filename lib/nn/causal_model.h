#pragma once
// The interface between families of decoders and everything that trains or generates with them.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "nn/model.h"

namespace llmtk::kernels {
struct LogProbOptions;
struct LogProbs;
}  // namespace llmtk::kernels

namespace llmtk::nn {

class KVCache;
enum class CacheType;
class Linear;
struct LayerContext;

/// What attention needs besides the ids. Everything may be left out.
struct ForwardContext {
  KVCache* cache = nullptr;   ///< null in training
  at::Tensor position_ids;    ///< [B, T] int64; default: counted over the real tokens, from the cache's length on
  at::Tensor attention_mask;  ///< [B, past + T] bool (or 0 and 1), false at padding; default: all true
  /// The ids are a few new tokens of each row, behind the row's own last one in the cache: rows may differ in length.
  /// The caller has called cache->begin_step(T), and calls cache->advance(T) for a pass that it repeats by a plan.
  /// Positions are counted from there; position_ids and attention_mask are not looked at. On a CPU what becomes of a row
  /// does not depend on the others, and the pass can be recorded (kernels/plan.h).
  bool step = false;
  /// Where a text is read piece by piece into the cache: the tokens of all of it, which some RoPE scalings look at.
  /// Default: those up to the end of this piece.
  int64_t sequence_length = 0;
  /// When set, attention takes the explicit path, softmax(QK^T / sqrt(d)) V, and appends each layer's [B, H, T, S]
  /// here; with attention_layer given, that layer's alone.
  std::vector<at::Tensor>* attentions = nullptr;
  std::optional<int64_t> attention_layer;
  /// When set, receives the embeddings' output and each layer's, as HF's output_hidden_states does: L + 1 tensors
  /// [B, T, H], the last one after the final norm.
  std::vector<at::Tensor>* hidden_states = nullptr;
};

/// A decoder with a language-model head.
class CausalModel : public Model {
 public:
  static constexpr const char* kKind = "a decoder";
  const char* kind() const override { return kKind; }
  Head head() const override { return Head::causal_lm; }

  /// input_ids: [B, T] int64. Returns the last hidden states after the final norm: [B, T, H]. The cache, where there is
  /// one, holds T tokens more. Throws Error(usage) where a row has more tokens than the model can see.
  at::Tensor forward(const at::Tensor& input_ids, const ForwardContext& context = {});
  /// The head, [V, H]; tied or not. Losses fuse with it, so logits need not be materialised.
  virtual Linear& lm_head() = 0;
  /// Logits are kernels::softcap with this bound of what the head gives (Gemma 2); 0: they are what it gives.
  virtual double final_logit_softcapping() const { return 0; }
  /// Whether what a token becomes depends on how long its text is, or the longest beside it
  /// (RopeConfig::depends_on_length).
  virtual bool depends_on_length() const { return false; }
  /// Logits of hidden states: [..., H] -> [..., V].
  at::Tensor logits(const at::Tensor& hidden);
  /// scale * sum of -log p(target) without holding the logits: kernels::linear_cross_entropy of the head.
  /// hidden: [N, H]; targets: [N] int64, those that are ignore_index are left out. A scalar, float32.
  at::Tensor cross_entropy(const at::Tensor& hidden, const at::Tensor& targets, double scale,
                           int64_t ignore_index = -100);
  /// log p(target) without holding the logits: [N] float32, 0 where the target is ignore_index. Differentiable.
  at::Tensor log_prob(const at::Tensor& hidden, const at::Tensor& targets, int64_t ignore_index = -100);
  /// The same at a temperature, with the entropies: kernels::linear_log_prob of the head. The softcap is the model's.
  kernels::LogProbs log_probs(const at::Tensor& hidden, const at::Tensor& targets, kernels::LogProbOptions options);
  /// A cache for `batch` sequences of at most `max_length` tokens, in the model's dtype and on its device. Virtual
  /// tokens have room beside them, and are put there by the first pass.
  std::unique_ptr<KVCache> make_cache(int64_t batch, int64_t max_length, CacheType type = CacheType{}) const;

  std::map<std::string, at::Tensor> tied_names() override;

 protected:
  /// The family's part of forward(): embeddings, layers, final norm. hidden_states: as in ForwardContext.
  virtual at::Tensor run_layers(const at::Tensor& input_ids, LayerContext& context,
                                std::vector<at::Tensor>* hidden_states) = 0;

 private:
  void fill_with_virtual_tokens(KVCache& cache, int64_t batch, int64_t sequence_length);
};

}  // namespace llmtk::nn
