#pragma once
// GPTQ (Frantar et al. 2022, algorithm 1): a matrix is rounded column by column, and what each loses is made up for by
// those that are left, so that the layer's output on calibration text changes least.

#include <ATen/core/Tensor.h>

#include "kernels/integer.h"

namespace llmtk::quant {

struct GptqOptions {
  double damping = 0.01;     ///< added to the Hessian's diagonal, as a share of its mean
  int64_t block_size = 128;  ///< columns that are rounded before the others learn of it; at least a group
  bool desc_act = false;  ///< the columns with the largest inputs first; scales are then those of the matrix as it was
};

struct GptqResult {
  kernels::IntegerMatrix matrix;
  double output_error = 0;  ///< |X (W - Q)^T| / |X W^T| on the calibration text (Frobenius)
};

/// weight: [out, in]; hessian: X^T X of its inputs, [in, in] float32, summed over the calibration's tokens. Scales of
/// groups are those of the columns as they are when their group begins (with desc_act: as they were). Throws
/// Error(data) where the Hessian cannot be inverted even with a hundred times the damping.
GptqResult gptq(const at::Tensor& weight, const at::Tensor& hessian, const kernels::IntegerFormat& format,
                c10::ScalarType scale_dtype, const GptqOptions& options = {});

/// |X (W - Q)^T| / |X W^T|, from the Hessian.
double output_error(const at::Tensor& weight, const at::Tensor& rounded, const at::Tensor& hessian);

}  // namespace llmtk::quant
