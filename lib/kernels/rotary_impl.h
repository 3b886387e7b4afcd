#pragma once
// Rotary embedding on plain memory.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// y[b, h, t, :R] = rotation of x[b, h, t, :R]; the rest is copied. Strides in elements; the last dimension is contiguous.
struct Rotary {
  Type type;               ///< of x and y
  Type angle_type;         ///< of cos and sin
  bool inverse;            ///< the transposed rotation: backward
  int64_t B, H, T, D, R;
  const void* x;
  int64_t x_batch, x_head, x_time;
  void* y;
  int64_t y_batch, y_head, y_time;
  const void* cos;
  const void* sin;
  int64_t angle_batch, angle_time;  ///< batch stride 0 when all sequences share the angles
};

namespace cpu {
/// Positions [begin, end) of B * T.
void rotary(const Rotary& r, int64_t begin, int64_t end);
}  // namespace cpu

namespace cuda {
void rotary(const Rotary& r, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
