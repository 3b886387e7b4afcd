#pragma once
// Keys and values of the tokens a decoder has seen.

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "nn/linear.h"

namespace llmtk::nn {

/// Per layer one block [B, H, room, D] for the keys and one for the values. There is room for max_length tokens at
/// once, or, where that is long, for kFirstRoom of them, and twice as many whenever it is used up: a conversation that
/// may become as long as the model allows takes what it has come to.
class KVCache {
 public:
  static constexpr int64_t kFirstRoom = 1024;

  KVCache(int64_t layers, int64_t batch, int64_t heads, int64_t max_length, int64_t head_dim, const Build& build);

  /// Tokens of the text that are held (padding included).
  int64_t length() const { return length_; }
  /// Tokens that stand before the text and are kept when it is forgotten (virtual_tokens.h).
  int64_t virtual_length() const { return virtual_length_; }
  /// Tokens that there is room for now; between length() and max_length().
  int64_t room() const { return layers_.front().keys.size(2); }
  int64_t max_length() const { return max_length_; }
  int64_t batch() const { return batch_; }

  /// Puts k and v ([B, H, T, D]) of layer `layer` behind what is held and returns all of them as views, [B, H,
  /// virtual_length + length + T, D]. The length changes only with advance(), once per forward pass. Throws
  /// Error(runtime) when the cache is full.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k, const at::Tensor& v);
  void advance(int64_t tokens) { length_ += tokens; }
  /// Into an empty cache, for all rows: keys_values [2 L, H, P, D] of virtual tokens.
  void put_virtual(const at::Tensor& keys_values);
  /// Instead of advance() where the layers have read virtual tokens.
  void advance_virtual(int64_t tokens) { virtual_length_ += tokens; }

  /// Row i becomes what row rows[i] was, for beams. rows: int64 [new batch]; the batch may grow or shrink with it.
  void reorder(const at::Tensor& rows);
  /// Forgets all but the first `length` tokens of the text.
  void truncate(int64_t length);

 private:
  struct Layer {
    at::Tensor keys, values;  // [B, H, room, D]
  };
  int64_t held() const { return virtual_length_ + length_; }

  std::vector<Layer> layers_;
  int64_t batch_, max_length_, length_ = 0, virtual_length_ = 0;
};

}  // namespace llmtk::nn
