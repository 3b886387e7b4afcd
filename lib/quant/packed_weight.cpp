#include "quant/packed_weight.h"

namespace llmtk::quant {

PackedWeight::PackedWeight(kernels::QuantizedMatrix matrix, std::optional<c10::ScalarType> compute_dtype)
    : matrix_(std::move(matrix)), compute_dtype_(compute_dtype) {}

at::Tensor PackedWeight::linear(const at::Tensor& x, const at::Tensor& bias) const {
  const auto own = x.scalar_type() == c10::kBFloat16 ? c10::kBFloat16 : c10::kFloat;
  return kernels::linear(x, matrix_, bias, compute_dtype_.value_or(own));
}

at::Tensor PackedWeight::dequantize(c10::ScalarType dtype) const { return kernels::dequantize(matrix_, dtype); }

}  // namespace llmtk::quant
