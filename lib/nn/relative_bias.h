#pragma once
// Positions as a bias on the attention scores, by the distance of the two tokens (T5).

#include <ATen/core/Tensor.h>

#include "nn/linear.h"

namespace llmtk::nn {

/// A table [buckets, heads] of what is added to a score. Raffel et al. (2020), section 2.1, as HF's T5Attention has it.
class RelativeBias : public torch::nn::Module {
 public:
  struct Options {
    int64_t buckets = 32;        ///< at least 4
    int64_t max_distance = 128;  ///< from here on all distances are alike; more than half of the buckets
    bool bidirectional = true;   ///< half of the buckets for keys after the query; otherwise these count as distance 0
  };
  RelativeBias(Options options, int64_t heads, const Build& build);

  /// For `queries` tokens, the first at position `past`, and `keys` tokens from position 0 on: [1, heads, queries,
  /// keys].
  at::Tensor forward(int64_t queries, int64_t keys, int64_t past) const;

  at::Tensor weight;  ///< [buckets, heads]

 private:
  Options options_;
};

}  // namespace llmtk::nn
