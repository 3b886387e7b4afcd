#pragma once
// Random weights that depend on the seed and the parameter's name alone: not on the device, the dtype (but for
// rounding), the number of threads, or the order in which parameters are made.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace llmtk::nn {

/// Fills `tensor` with normal numbers of mean 0. Made on the CPU in float32, then rounded and moved.
void init_normal(const at::Tensor& tensor, double standard_deviation, uint64_t seed, std::string_view name);
void init_constant(const at::Tensor& tensor, double value);

}  // namespace llmtk::nn
