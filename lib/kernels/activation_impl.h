#pragma once
// Activations on plain memory.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

enum class Activation : uint8_t { gelu, gelu_tanh, silu };

/// y = act(x), or act(x) * up where up is given: rows of `columns` elements; x and up may have their own row strides.
struct ActivationForward {
  Type type;
  Activation activation;
  int64_t rows, columns;
  const void* x;
  int64_t x_stride;   ///< elements between rows
  const void* up;     ///< may be null
  int64_t up_stride;
  void* y;            ///< contiguous
};

struct ActivationBackward {
  Type type;
  Activation activation;
  int64_t rows, columns;
  const void* dy;     ///< contiguous
  const void* x;
  int64_t x_stride;
  const void* up;     ///< may be null
  int64_t up_stride;
  void* dx;           ///< contiguous
  void* dup;          ///< contiguous; with up only
};

namespace cpu {
void activation_forward(const ActivationForward& a, int64_t row_begin, int64_t row_end);
void activation_backward(const ActivationBackward& a, int64_t row_begin, int64_t row_end);
}  // namespace cpu

namespace cuda {
void activation_forward(const ActivationForward& a, void* stream);
void activation_backward(const ActivationBackward& a, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
