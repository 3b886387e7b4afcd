#pragma once
// Attention of newest tokens on plain memory.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// A tensor [B, heads, T, D] whose last dimension is contiguous. Strides in elements.
struct Heads {
  const void* data;
  int64_t batch, head, time;
};

struct StepAttention {
  static constexpr int64_t kMostCudaDim = 256;  ///< the largest D that the CUDA kernel takes

  Type type;       ///< of q, k, v and y
  bool quantized;  ///< keys and values are int8; else of `type`
  int64_t B, H, K, T, D, room;
  int64_t group;  ///< query heads that one piece of work handles; a divisor of H / K
  Heads q, k, v;
  void* keys;  ///< [B, K, room, D]
  void* values;
  float* key_scales;  ///< [B, K, room], with int8
  float* value_scales;
  const int64_t* lengths;  ///< [B]: tokens held before
  float scale, softcap;
  int64_t window;
  void* y;  ///< [B, T, H, D]
};

namespace cpu {
/// k and v of pieces [begin, end) of B K behind what is held.
void append_step(const StepAttention& a, int64_t begin, int64_t end);
/// Pieces [begin, end) of B H / group. The keys and values have been appended.
void step_attention(const StepAttention& a, int64_t begin, int64_t end);
}  // namespace cpu

namespace cuda {
/// Both.
void step_attention(const StepAttention& a, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
