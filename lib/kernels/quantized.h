#pragma once
// Weights of four or eight bits that are multiplied without ever standing in memory in full.

#include <ATen/core/Tensor.h>

#include "kernels/quantized_impl.h"

namespace llmtk::kernels {

/// A frozen weight [out, in] in few bits, bit by bit what bitsandbytes 0.50 makes of it on a CPU.
///
/// nf4, fp4 (`functional.quantize_4bit`, QLoRA, Dettmers et al. 2023, section 3): the flat weight is cut into blocks of
/// 64, whatever its rows; each is divided by its largest absolute value, and an element becomes the nearest of 16
/// values. Double quantization then keeps the blocks' scales, less their mean, as 8-bit codes of the "dynamic" map,
/// with a scale per 256 of them. int8 (`functional.int8_vectorwise_quant`): as float16, divided by the largest absolute
/// value of its row, in 127 steps.
struct QuantizedMatrix {
  QuantType type = QuantType::nf4;
  int64_t rows = 0, columns = 0;  ///< out, in
  at::Tensor codes;               ///< uint8 [(out * in + 1) / 2], or int8 [out, in]
  at::Tensor scales;              ///< float32, one per block or row; undefined when doubly quantized
  /// Doubly quantized: scale = scale_map[scale_codes] * scale_scales + scale_offset.
  at::Tensor scale_codes;   ///< uint8, one per block
  at::Tensor scale_scales;  ///< float32, one per 256 blocks
  at::Tensor scale_map;     ///< float32 [256], shared by all matrices of a device
  float scale_offset = 0;

  int64_t bytes() const;  ///< of the weight's own tensors
  QuantizedMatrix to(c10::Device device) const;
};

/// weight: [out, in], float32, bfloat16 or float16, in any layout (a view of a mapped file, a transposed one), on any
/// device; packed on the CPU, some rows at a time. Double quantization is for four bits only. Throws Error(file) for
/// numbers that are not finite.
QuantizedMatrix quantize(const at::Tensor& weight, QuantType type, bool double_quantization = false);

/// The matrix in full, [out, in].
at::Tensor dequantize(const QuantizedMatrix& matrix, c10::ScalarType dtype);

/// x W^T + bias, computed in `compute_dtype` (float32 or bfloat16): x and bias are converted to it, W is what
/// dequantize(compute_dtype) gives, the result is converted to x's dtype. x: [..., in]; bias: [out] or undefined.
/// Differentiable in x and bias; nothing of x is kept for that. W is unpacked tile by tile, again in backward. On a CPU
/// up to 8 rows without a gradient are multiplied with the packed weight directly.
at::Tensor linear(const at::Tensor& x, const QuantizedMatrix& matrix, const at::Tensor& bias,
                  c10::ScalarType compute_dtype = c10::kFloat);

namespace reference {
at::Tensor dequantize(const QuantizedMatrix& matrix, c10::ScalarType dtype);
}  // namespace reference

}  // namespace llmtk::kernels
