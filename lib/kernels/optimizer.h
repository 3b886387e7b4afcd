#pragma once
// Optimizer steps over lists of tensors, in one pass over memory.
//
// bfloat16 parameters have float32 masters, kept as the bfloat16 weight plus 16 more bits: with w the weight's bits and
// e the extra, a signed 16-bit integer, the master's bits are (w << 16) + e. So the weight is the master rounded to
// nearest, the master is exact, and it costs 2 bytes per parameter instead of 4.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <utility>

namespace llmtk::kernels {

/// One parameter. All tensors are contiguous, of one shape, on one device.
struct AdamWTensor {
  at::Tensor param;       ///< float32 or bfloat16
  at::Tensor grad;        ///< float32, or param's dtype
  at::Tensor exp_avg;     ///< float32
  at::Tensor exp_avg_sq;  ///< float32
  at::Tensor extra;       ///< int16, the master's low bits; undefined for a float32 param
  double weight_decay = 0.0;
  double lr_scale = 1.0;  ///< multiplies the learning rate
};

struct AdamWOptions {
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  int64_t step = 1;         ///< 1 for the first step
  double grad_scale = 1.0;  ///< multiplies the gradients (clipping, averaging)
  bool zero_grad = false;   ///< set the gradients to zero in the same pass
};

/// As torch.optim.AdamW: p -= lr * weight_decay * p, then p -= lr * m_hat / (sqrt(v_hat) + eps).
/// Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
void adamw_step(std::span<AdamWTensor> tensors, const AdamWOptions& options);

struct SgdTensor {
  at::Tensor param;     ///< float32 or bfloat16
  at::Tensor grad;      ///< float32, or param's dtype
  at::Tensor momentum;  ///< float32, zeros before the first step; may be undefined when options.momentum is 0
  at::Tensor extra;     ///< int16, the master's low bits; undefined for a float32 param
  double weight_decay = 0.0;
  double lr_scale = 1.0;
};

struct SgdOptions {
  double lr = 1e-3;
  double momentum = 0.0;
  bool nesterov = false;
  double grad_scale = 1.0;
  bool zero_grad = false;
};

/// As torch.optim.SGD (weight decay added to the gradient, no dampening).
void sgd_step(std::span<SgdTensor> tensors, const SgdOptions& options);

/// The sum of squares of everything in the list, in an order that does not depend on the number of threads.
/// Sums of a few thousand squares are taken in float32, those in float64. Infinite or NaN elements show in the result.
double squared_norm(std::span<const at::Tensor> tensors);

/// dst += src. dst: float32; src: float32 or bfloat16 of the same shape; both contiguous.
void accumulate_(at::Tensor& dst, const at::Tensor& src);

/// A float32 master as {bfloat16 weight, int16 extra}.
std::pair<at::Tensor, at::Tensor> split_master(const at::Tensor& master);
/// The float32 master back, bit for bit.
at::Tensor join_master(const at::Tensor& weight, const at::Tensor& extra);

namespace reference {
void adamw_step(std::span<AdamWTensor> tensors, const AdamWOptions& options);
void sgd_step(std::span<SgdTensor> tensors, const SgdOptions& options);
double squared_norm(std::span<const at::Tensor> tensors);
}  // namespace reference

}  // namespace llmtk::kernels
