#pragma once
// What a Linear or a token table keeps instead of its matrix under the schemes of integers: W8A8, W8A16, W4A16, W4A8.

#include "kernels/integer.h"
#include "nn/linear.h"

namespace llmtk::quant {

/// compressed-tensors' quantized linear layer. The weight is unpacked in the dtype of what comes in; with dynamic
/// activations the input's rows are rounded to 8 bits and integers are multiplied.
class IntegerWeight : public nn::WeightStorage {
 public:
  explicit IntegerWeight(kernels::IntegerMatrix matrix) : matrix_(matrix.ready()) {}

  at::Tensor linear(const at::Tensor& x, const at::Tensor& bias) const override {
    return kernels::linear(x, matrix_, bias);
  }
  at::Tensor dequantize(c10::ScalarType dtype) const override { return kernels::dequantize(matrix_, dtype); }
  at::Tensor rows(const at::Tensor& ids, c10::ScalarType dtype) const override {
    return kernels::dequantize_rows(matrix_, ids, dtype);
  }
  int64_t bytes() const override { return matrix_.bytes(); }

  const kernels::IntegerMatrix& matrix() const { return matrix_; }

 private:
  kernels::IntegerMatrix matrix_;
};

}  // namespace llmtk::quant
