#pragma once
// Tokens that stand before every text a model sees and are learned instead of looked up: what prefix tuning, P-tuning
// v2 and prompt tuning give a model. Families know of them no more than where their embeddings go.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>

namespace llmtk::nn {

/// Of the keys and values that a model's self-attention keeps of each token.
struct KeyValueShape {
  int64_t layers = 0, heads = 0, head_dim = 0;
};

/// P virtual tokens. They take the positions 0 ... P - 1, texts begin at P, every token sees them (as far as its window
/// reaches), and nothing is said of what follows them. A module of its own, so that its parameters are named, trained
/// and saved. One of the two functions gives something defined, in whatever dtype the parameters have.
class VirtualTokens : public torch::nn::Module {
 public:
  virtual int64_t length() const = 0;  ///< P
  /// What self-attention sees of them, keys not rotated: [2 L, K, P, D], of layer l the keys at 2 l, the values at 2 l
  /// +
  /// 1. Of an encoder-decoder the decoder's.
  virtual at::Tensor keys_values() { return {}; }
  /// What the first layer reads in their place: [P, E]. Of an encoder-decoder the encoder's.
  virtual at::Tensor embeddings() { return {}; }
};

/// What one pass puts before its text, in the model's dtype; both undefined where there is nothing, or the cache holds
/// it.
struct VirtualInputs {
  at::Tensor keys_values;  ///< [2 L, K, P, D]
  at::Tensor embeddings;   ///< [P, E]

  int64_t length() const { return keys_values.defined() ? keys_values.size(2) : read(); }
  /// Tokens that the layers read in this pass beside the text's.
  int64_t read() const { return embeddings.defined() ? embeddings.size(0) : 0; }
};

/// The embeddings [P, E], or none, before those of each row's tokens: [B, T, E] -> [B, P + T, E].
at::Tensor put_before(const at::Tensor& embeddings, const at::Tensor& tokens);
/// keys_values [2 L, K, P, D], or none, of `layer`, before the keys and values of a text, each [B, K, T, D] -> [B, K, P
/// + T, D].
void put_before(const at::Tensor& keys_values, int64_t layer, at::Tensor& keys, at::Tensor& values);

}  // namespace llmtk::nn
