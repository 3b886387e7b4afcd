#pragma once
// Keys and values of the tokens a decoder has seen.

#include <ATen/core/Tensor.h>

#include <map>
#include <utility>
#include <vector>

#include "kernels/step_attention.h"
#include "nn/linear.h"

namespace llmtk::nn {

/// How keys and values are kept.
enum class CacheType {
  plain,  ///< in the model's dtype
  int8,   ///< in 8 bits, with a scale per token and head
};

/// Per layer one block [B, H, room, D] for the keys and one for the values. There is room for max_length tokens at
/// once, or, where that is long, for kFirstRoom of them, and twice as many whenever it is used up: a conversation that
/// may become as long as the model allows takes what it has come to.
///
/// It is filled in two ways. A pass over a text appends the same number of tokens to all rows, which hold equally many.
/// A step (ForwardContext::step) adds a few tokens to each row behind its own last one: rows may differ in length.
class KVCache {
 public:
  static constexpr int64_t kFirstRoom = 1024;

  KVCache(int64_t layers, int64_t batch, int64_t heads, int64_t max_length, int64_t head_dim, const Build& build,
          CacheType type = CacheType::plain);

  /// Tokens of the text that the longest row holds (padding included).
  int64_t length() const;
  /// Of each row.
  const std::vector<int64_t>& lengths() const { return lengths_; }
  /// Tokens that stand before the text and are kept when it is forgotten (virtual_tokens.h).
  int64_t virtual_length() const { return virtual_length_; }
  /// Tokens that there is room for now; between length() and max_length().
  int64_t room() const { return layers_.front().keys.size(2); }
  int64_t max_length() const { return max_length_; }
  int64_t batch() const { return static_cast<int64_t>(lengths_.size()); }

  /// Puts k and v ([B, H, T, D]) of layer `layer` behind what is held and returns all of them as they are kept, [B, H,
  /// virtual_length + length + T, D]: views, or decoded ones. The length changes only with advance(), once per forward
  /// pass. Throws Error(runtime) when the cache is full.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k, const at::Tensor& v);
  void advance(int64_t tokens);
  /// Into an empty cache, for all rows: keys_values [2 L, H, P, D] of virtual tokens.
  void put_virtual(const at::Tensor& keys_values);
  /// Instead of advance() where the layers have read virtual tokens.
  void advance_virtual(int64_t tokens) { virtual_length_ += tokens; }

  /// Before a step of `tokens` tokens: makes room for them in every row and notes the places that they take. Throws
  /// Error(runtime) when the cache is full.
  void begin_step(int64_t tokens);
  /// These places, int64 [B, tokens]: as many as the row holds, virtual ones included, and up.
  const at::Tensor& places(int64_t tokens) const { return places_.at(tokens); }
  /// Of one layer, for kernels::step_attention.
  kernels::KeyValueBlocks blocks(int64_t layer) const;
  /// Tokens that each row holds, virtual ones included: int64 [B]. As of begin_step().
  const at::Tensor& held_lengths() const { return held_lengths_; }
  /// Changes when blocks, places or held_lengths are other tensors than before; until then the same memory is used.
  int64_t epoch() const { return epoch_; }

  /// Row i becomes what row rows[i] was, for beams. rows: int64 [new batch]; the batch may grow or shrink with it.
  void reorder(const at::Tensor& rows);
  /// Forgets all but the first `length` tokens of the text.
  void truncate(int64_t length);
  /// Of each row.
  void truncate(const std::vector<int64_t>& lengths);

 private:
  struct Layer {
    at::Tensor keys, values;              // [B, H, room, D]
    at::Tensor key_scales, value_scales;  // [B, H, room] with int8
    std::vector<at::Tensor*> blocks();
  };
  int64_t held() const { return virtual_length_ + length(); }
  void make_room(int64_t total);
  at::Tensor put(at::Tensor& block, at::Tensor& scales, const at::Tensor& x);

  std::vector<Layer> layers_;
  std::vector<int64_t> lengths_;
  int64_t max_length_, virtual_length_ = 0, epoch_ = 0;
  at::Tensor held_lengths_;               // [B]
  std::map<int64_t, at::Tensor> places_;  // by the number of tokens of a step
};

}  // namespace llmtk::nn
