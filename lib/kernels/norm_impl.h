#pragma once
// LayerNorm and RMSNorm on plain memory: rows of H elements, one after another.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

struct NormForward {
  Type type;              ///< of x, residual, sum, weight, bias, y
  bool rms;               ///< RMSNorm: no mean, no bias
  bool unit_offset;       ///< RMSNorm alone: 1 + weight, and only the product is rounded
  int64_t rows, H;
  const void* x;
  const void* residual;   ///< may be null
  void* sum;              ///< x + residual; with residual only
  const void* weight;
  const void* bias;       ///< may be null
  void* y;
  float* mean;            ///< [rows], null for RMSNorm
  float* rstd;            ///< [rows]
  float eps;
};

struct NormBackward {
  Type type;
  bool rms;
  bool unit_offset;
  int64_t rows, H;
  const void* dy;
  const void* dsum;       ///< gradient that flows along the residual, added to dx; may be null
  const void* x;          ///< what was normalised
  const void* weight;
  const float* mean;
  const float* rstd;
  void* dx;
  /// Partial sums of the weight's and bias's gradients: [slices, H] float32, added up by norm_reduce. Null: not wanted.
  float* dweight_parts;
  float* dbias_parts;
  int64_t slices;         ///< rows are cut into this many equal slices, the last one shorter
};

namespace cpu {
void norm_forward(const NormForward& n, int64_t row_begin, int64_t row_end);
void norm_backward(const NormBackward& n, int64_t slice_begin, int64_t slice_end);
/// out[h] = sum over slices of parts[slice, h].
void norm_reduce(const float* parts, int64_t slices, int64_t H, Type type, void* out);
}  // namespace cpu

namespace cuda {
void norm_forward(const NormForward& n, void* stream);
void norm_backward(const NormBackward& n, void* stream);
void norm_reduce(const float* parts, int64_t slices, int64_t H, Type type, void* out, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
