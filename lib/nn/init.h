#pragma once
// Random weights that depend on the seed and the parameter's name alone: not on the device, the dtype (but for
// rounding), the number of threads, or the order in which parameters are made.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <functional>
#include <string_view>

namespace llmtk::nn {

/// Fills `tensor` with normal numbers of mean 0. Made on the CPU in float32, then rounded and moved.
void init_normal(const at::Tensor& tensor, double standard_deviation, uint64_t seed, std::string_view name);
/// The same with uniform numbers in (-bound, bound).
void init_uniform(const at::Tensor& tensor, double bound, uint64_t seed, std::string_view name);
void init_constant(const at::Tensor& tensor, double value);
/// As most families begin: biases 0, norms 1, matrices and tables normal, each with the deviation of its name.
void init_parameters(const torch::nn::Module& module, uint64_t seed,
                     const std::function<double(std::string_view name)>& deviation);
void init_parameters(const torch::nn::Module& module, uint64_t seed, double deviation);

}  // namespace llmtk::nn
