#pragma once
// Runs a differentiable operation and its reference on the same leaves and compares results and gradients.

#include <ATen/ATen.h>

#include <functional>
#include <string>
#include <vector>

#include "core/device.h"
#include "kernels/backend.h"
#include "test.h"

namespace llmtk::test {

using Tensors = std::vector<at::Tensor>;
using Operation = std::function<Tensors(const Tensors&)>;

/// Outputs and the leaves' gradients under fixed gradients of the outputs. Undefined leaves stay undefined.
inline Tensors run_with_gradients(const Operation& operation, const Tensors& leaves, at::ScalarType dtype,
                                  c10::Device device) {
  Tensors inputs;
  for (const at::Tensor& leaf : leaves) {
    if (!leaf.defined()) {
      inputs.emplace_back();
    } else if (!leaf.is_floating_point()) {
      inputs.push_back(leaf.to(device));
    } else {
      // Rounded to bfloat16 first, so that both dtypes see the same numbers; strides are kept.
      inputs.push_back(leaf.to(at::kBFloat16).to(device, dtype).set_requires_grad(true));
    }
  }
  Tensors result = operation(inputs);
  at::Tensor total = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
  for (size_t i = 0; i < result.size(); ++i) {
    const at::Tensor flat = result[i].reshape(-1).to(at::kFloat);
    const at::Tensor factors = at::sin(at::arange(flat.numel(), flat.options()) * (1.3 + 0.1 * static_cast<double>(i)));
    total = total + (flat * factors.to(at::kBFloat16).to(at::kFloat)).sum();
  }
  total.backward();
  for (at::Tensor& t : result) t = t.detach();
  for (const at::Tensor& input : inputs)
    if (input.defined() && input.is_floating_point()) result.push_back(input.grad());
  for (at::Tensor& t : result)
    if (t.defined()) t = t.to(at::kCPU, at::kFloat);
  return result;
}

/// The largest difference, relative to the largest absolute value of the expected tensor.
inline double difference(const at::Tensor& got, const at::Tensor& expected) {
  if (got.sizes() != expected.sizes()) return 1e30;
  if (expected.numel() == 0) return 0.0;
  const double scale = std::max(expected.abs().max().item<double>(), 1e-6);
  const double worst = (got - expected).abs().max().item<double>() / scale;
  return std::isfinite(worst) ? worst : 1e30;
}

/// The operation in float32 and bfloat16 against the reference computed in float32.
inline void compare(const std::string& name, const Operation& fused, const Operation& reference, const Tensors& leaves,
                    c10::Device device, double bfloat16_tolerance = 1.6e-2) {
  const Tensors expected = run_with_gradients(reference, leaves, at::kFloat, c10::Device(c10::kCPU));
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Tensors got = run_with_gradients(fused, leaves, dtype, device);
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      INFO(name << " " << dtype_name(dtype) << " on " << device << ", tensor " << i);
      REQUIRE(got[i].defined() == expected[i].defined());
      if (got[i].defined()) CHECK(difference(got[i], expected[i]) < (dtype == at::kFloat ? 4e-6 : bfloat16_tolerance));
    }
  }
}

inline bool has_gpu() { return resolve_device("auto").is_cuda(); }

}  // namespace llmtk::test
