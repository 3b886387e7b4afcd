#pragma once
// Softmax cross-entropy on plain memory.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// losses[n] = log sum_v exp(logits[n, v]) - logits[n, target]; where `gradient` is set the logits are replaced by
/// scale * (softmax(logits) - onehot(target)).
struct SoftmaxLoss {
  Type type;
  int64_t rows, V;        ///< logits: [rows, V], contiguous
  void* logits;
  const int64_t* targets; ///< [rows], all in [0, V)
  float* losses;          ///< [rows]
  bool gradient;
  float scale;
};

/// z = logits / temperature, p = softmax(z) of each row.
struct TokenLogProb {
  Type type;
  int64_t rows, V;  ///< logits: [rows, V], contiguous
  void* logits;
  const int64_t* targets;  ///< [rows], all in [0, V)
  float inverse_temperature;
  float* log_sums;   ///< [rows]: log sum_v exp(z_v); made by token_log_prob, read by the gradient
  float* entropies;  ///< [rows]: -sum_v p_v log p_v; the same; null: not asked for
  float* log_probs;  ///< [rows]: z_target - log_sum
  /// [rows], of the gradient alone: the logits become
  /// (of_log_probs * (onehot(target) - p) - of_entropies * p * (log p + entropy)) / temperature. Null: 0.
  const float *of_log_probs, *of_entropies;
};

namespace cpu {
void softmax_loss(const SoftmaxLoss& s, int64_t row_begin, int64_t row_end);
void token_log_prob(const TokenLogProb& s, int64_t row_begin, int64_t row_end);
void token_log_prob_gradient(const TokenLogProb& s, int64_t row_begin, int64_t row_end);
}  // namespace cpu

namespace cuda {
void softmax_loss(const SoftmaxLoss& s, void* stream);
void token_log_prob(const TokenLogProb& s, void* stream);
void token_log_prob_gradient(const TokenLogProb& s, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
