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

namespace cpu {
void softmax_loss(const SoftmaxLoss& s, int64_t row_begin, int64_t row_end);
}  // namespace cpu

namespace cuda {
void softmax_loss(const SoftmaxLoss& s, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
