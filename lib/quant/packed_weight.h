#pragma once
// What a Linear keeps instead of its matrix when it is quantized.

#include <optional>

#include "kernels/quantized.h"
#include "nn/linear.h"

namespace llmtk::quant {

/// bitsandbytes' Linear4bit, and its Linear8bitLt as that trains on a CPU (MatMul8bitFp): the weight is unpacked and
/// multiplied in the compute dtype. LLM.int8() proper (Dettmers et al. 2022) also quantizes each row of the input to
/// int8 and takes out the columns with outliers above llm_int8_threshold; here inputs stay as they are, which is more
/// exact and needs no threshold.
class PackedWeight : public nn::WeightStorage {
 public:
  /// compute_dtype: float32 or bfloat16; nullopt: that of the input (float32 for types that kernels do not know).
  PackedWeight(kernels::QuantizedMatrix matrix, std::optional<c10::ScalarType> compute_dtype);

  at::Tensor linear(const at::Tensor& x, const at::Tensor& bias) const override;
  at::Tensor dequantize(c10::ScalarType dtype) const override;
  int64_t bytes() const override { return matrix_.bytes(); }

  const kernels::QuantizedMatrix& matrix() const { return matrix_; }

 private:
  kernels::QuantizedMatrix matrix_;
  std::optional<c10::ScalarType> compute_dtype_;
};

}  // namespace llmtk::quant
