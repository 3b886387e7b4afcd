#pragma once
// Matrices of integers with scales, as the package compressed-tensors (0.20) defines and stores them: 8 or 4 bits, a
// scale per row or per group of columns, multiplied as they lie in the file.

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

/// How a matrix is rounded, and how its codes lie.
struct IntegerFormat {
  int bits = 8;                      ///< 8 or 4
  int64_t group_size = 0;            ///< columns that share a scale; 0: all of a row
  bool symmetric = true;             ///< false: each scale has a zero point
  bool packed = false;               ///< codes in words of 32 bits ("pack-quantized"), else in bytes ("int-quantized")
  bool dynamic_activations = false;  ///< each row of what is multiplied is rounded to 8 bits too
  bool operator==(const IntegerFormat&) const = default;
};

/// W[n, k] = (code[n, k] - zero_point[n, g]) * scale[n, g], g = k / group_size; N = rows (out), K = columns (in), G
/// groups of a row. The tensors are those of a file of compressed-tensors, so they may lie in a map of it.
struct IntegerMatrix {
  IntegerFormat format;
  int64_t rows = 0, columns = 0;
  /// int8 [N, K]; packed: int32 [N, ceil(K * bits / 32)], the first code in the lowest bits, each plus 2^(bits - 1).
  at::Tensor codes;
  at::Tensor scales;  ///< [N, G], float32, bfloat16 or float16: the dtype of the model
  at::Tensor
      zero_points;  ///< undefined where symmetric; int8 [N, G]; packed: int32 [ceil(N * bits / 32), G], along rows

  at::Tensor plain_zero_points;  ///< int8 [N, G], made by ready(); undefined before, and where symmetric

  int64_t group_size() const { return format.group_size ? format.group_size : columns; }
  int64_t groups() const { return columns / group_size(); }
  int64_t bytes() const;  ///< of its tensors
  IntegerMatrix to(c10::Device device) const;
  /// With what products need beside the file's tensors.
  IntegerMatrix ready() const;
};

struct IntegerScales {
  at::Tensor scales, zero_points;  ///< [N, G]; zero points int8, undefined where symmetric
};

/// Scales and zero points of groups from their smallest and largest numbers ([N, G], in the dtype that the scales are
/// to have): compressed-tensors' calculate_qparams, operation by operation in that dtype.
IntegerScales integer_scales(const at::Tensor& smallest, const at::Tensor& largest, const IntegerFormat& format);

/// x: [N, g] of one group each (or [N, G, g]), scales and zero points [N, 1] (or [N, G, 1]): codes, int8, x's shape.
/// The quotient is taken in float32, whatever the dtypes (as the package's Triton kernel does), and halves become the
/// even neighbour.
at::Tensor integer_codes(const at::Tensor& x, const IntegerScales& scales, int bits);

/// Packs int8 codes [N, K] and zero points [N, G] as the format says.
IntegerMatrix integer_matrix(const at::Tensor& codes, const IntegerScales& scales, const IntegerFormat& format);

/// Rounds to nearest. weight: [out, in], float32, bfloat16 or float16, in any layout; its columns must be a multiple of
/// the group size. scale_dtype: that of the model it will be part of. Some rows at a time. Throws Error(file) for
/// numbers that are not finite.
IntegerMatrix quantize(const at::Tensor& weight, const IntegerFormat& format, c10::ScalarType scale_dtype);

/// The matrix in full, [out, in].
at::Tensor dequantize(const IntegerMatrix& matrix, c10::ScalarType dtype);
/// Some of its rows. ids: int64 [...] -> [..., in].
at::Tensor dequantize_rows(const IntegerMatrix& matrix, const at::Tensor& ids, c10::ScalarType dtype);

/// x W^T + bias. x: [..., in], float32, bfloat16 or float16; bias: [out] or undefined. Returns [..., out] in x's dtype.
///
/// Without dynamic activations W is what dequantize(x's dtype) gives; differentiable in x and bias. With them each row
/// x_m becomes integers q_m and a scale s_m = max |x_m| / 127.5 (the package's symmetric rounding per token, in
/// float32), and y[m, n] = s_m * scale[n] * sum_k q[m, k] code[n, k] + bias[n], whose sum is exact; not differentiable:
/// throws Error(usage) where a gradient is asked for.
at::Tensor linear(const at::Tensor& x, const IntegerMatrix& matrix, const at::Tensor& bias = {});

/// Rows of x as 8-bit integers with a scale each: q int8 [M, K], scales float32 [M].
struct IntegerRows {
  at::Tensor codes, scales;
};
IntegerRows quantize_rows(const at::Tensor& x);

namespace reference {
at::Tensor dequantize(const IntegerMatrix& matrix, c10::ScalarType dtype);
at::Tensor linear(const at::Tensor& x, const IntegerMatrix& matrix, const at::Tensor& bias = {});
}  // namespace reference

}  // namespace llmtk::kernels
