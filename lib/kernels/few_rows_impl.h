#pragma once
// The product of few rows with a large matrix, as decoding needs it, on plain memory: every weight is read once.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// y[m, n] = sum over k of x[m, k] weight[n, k], + bias[n]; summed in float32. What becomes of a row does not depend on
/// the others, to the last bit.
struct FewRows {
  static constexpr int64_t kMost = 32;     ///< rows
  static constexpr int64_t kColumns = 16;  ///< of y in one block; the last block may have fewer

  Type type;            ///< of x, weight, bias and y
  int64_t M, N, K;      ///< M from 1 to kMost
  const void* x;        ///< [M, K]
  const void* weight;
  bool transposed;      ///< weight[n, k] is at n + k N instead of n K + k
  const void* bias;     ///< [N], may be null
  void* y;              ///< [M, N]
};

namespace cpu {
void few_rows(const FewRows& f, int64_t block_begin, int64_t block_end);
}  // namespace cpu

}  // namespace llmtk::kernels
