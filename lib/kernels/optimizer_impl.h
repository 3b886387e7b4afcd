#pragma once
// Optimizer steps and sums of squares on plain memory.

#include <cstdint>

#include "kernels/types.h"

namespace llmtk::kernels {

/// AdamW over n elements; the factors are the formula's, made once per tensor.
struct AdamWChunk {
  Type param_type, grad_type;
  int64_t n;
  void* param;
  void* grad;
  float* exp_avg;
  float* exp_avg_sq;
  int16_t* extra;           ///< with a bfloat16 param
  float decay;              ///< 1 - lr * weight_decay
  float step_size;          ///< lr / (1 - beta1^step)
  float inverse_correction; ///< 1 / sqrt(1 - beta2^step)
  float one_minus_beta1, beta2, one_minus_beta2, eps, grad_scale;
  bool zero_grad;
};

struct SgdChunk {
  Type param_type, grad_type;
  int64_t n;
  void* param;
  void* grad;
  float* momentum;          ///< null: none
  int16_t* extra;
  float lr, weight_decay, momentum_factor, grad_scale;
  bool nesterov;
  bool zero_grad;
};

namespace cpu {
void adamw(const AdamWChunk& chunk);
void sgd(const SgdChunk& chunk);
double squared_norm(Type type, const void* x, int64_t n);
void accumulate(float* dst, Type type, const void* src, int64_t n);
}  // namespace cpu

namespace cuda {
void adamw(const AdamWChunk& chunk, void* stream);
void sgd(const SgdChunk& chunk, void* stream);
/// Writes `blocks` partial sums to parts (device memory).
void squared_norm(Type type, const void* x, int64_t n, double* parts, int blocks, void* stream);
void accumulate(float* dst, Type type, const void* src, int64_t n, void* stream);
}  // namespace cuda

}  // namespace llmtk::kernels
