#pragma once
// Dropout without a mask in memory.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/dropout_impl.h"

namespace llmtk::kernels {

/// Zeroes elements of x with probability p and multiplies the others by 1 / (1 - p) (Srivastava et al., Dropout, 2014).
/// On a CPU the mask is a function of one number of the default generator and of each element's place: it is drawn
/// again in the backward pass. On a GPU at::dropout.
at::Tensor dropout(const at::Tensor& x, double p);

namespace reference {
/// x times dropout_factors(), in plain ATen.
at::Tensor dropout(const at::Tensor& x, double p, uint64_t seed);
}  // namespace reference

/// The factors, 0 or 1 / (1 - p), by which a seed's dropout multiplies [rows, columns] elements: float32.
at::Tensor dropout_factors(int64_t rows, int64_t columns, double p, uint64_t seed);

/// For operations that drop on their way.
Dropout make_dropout(double p, uint64_t seed, int64_t columns);
uint64_t draw_dropout_seed();

}  // namespace llmtk::kernels
