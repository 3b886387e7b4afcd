#pragma once
// Forward passes over padded batches of texts, whatever the kind of model.

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "inspect/input.h"
#include "io/tensors.h"

namespace llmtk {

/// What is wanted of a pass.
struct Wanted {
  enum class Logits { none, last, all } logits = Logits::none;  ///< last: of each text's last token alone
  bool hidden_states = false, attentions = false;
  std::optional<int64_t> attention_layer;  ///< of decoders: this layer's alone
};

/// The layers that read one kind of tokens: a model's, or the encoder's and the decoder's.
struct Stack {
  std::string prefix;    ///< of its names: "", "encoder_" or "decoder_"
  at::Tensor ids, mask;  ///< [B, T] int64
  at::Tensor type_ids;   ///< [B, T] int64, of pairs of texts; otherwise undefined
  bool causal = false;
  std::vector<at::Tensor> hidden_states;                 ///< L + 1 of [B, T, H], float32
  std::vector<at::Tensor> attentions;                    ///< L of [B, heads, T, T], float32
  std::vector<at::Tensor> cross_attentions;              ///< of the decoder of an encoder-decoder: [B, heads, T, S]
  int64_t begin(size_t text) const;                      ///< its first real token
  std::vector<text::TokenId> tokens(size_t text) const;  ///< without padding
};

struct Passes {
  std::vector<Stack> stacks;
  at::Tensor logits;         ///< [B, T or 1, V], or [B, labels] of texts; float32, on the CPU
  at::Tensor pooler_output;  ///< [B, H]; of encoders that have one

  size_t rows() const { return static_cast<size_t>(stacks[0].ids.size(0)); }  ///< texts
  /// What the logits belong to: the only stack, or the decoder's.
  const Stack& read() const { return stacks.back(); }
};

/// Runs the texts in their order, options.batch_size at a time; use(passes, begin) is given those from `begin` on.
/// Throws Error(usage) where logits are wanted of a model without a head.
void run_batches(nn::Model& model, const std::vector<Input>& inputs, const Wanted& wanted, const InputOptions& options,
                 const std::function<void(const Passes& passes, size_t begin)>& use);
/// All texts as one padded batch, though computed batch by batch.
Passes run_all(nn::Model& model, const std::vector<Input>& inputs, const Wanted& wanted, const InputOptions& options);

/// Every tensor under transformers' names, those of layers with their number, for a .safetensors file. layer: as
/// choose() takes it, for each stack.
io::NamedTensors named_tensors(const Passes& passes, const std::string& layer = "all");

/// Throws Error(usage) unless `path` ends in one of `suffixes`.
void check_output(const std::string& path, const std::vector<std::string>& suffixes);

}  // namespace llmtk
