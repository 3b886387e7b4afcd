#include "nn/norm.h"

#include <ATen/ops/ones.h>

#include "kernels/dropout.h"
#include "kernels/norm.h"

namespace llmtk::nn {

LayerNorm::LayerNorm(int64_t width, double eps, const Build& build, bool affine) : eps_(eps) {
  if (affine) {
    weight = register_parameter("weight", build.empty({width}));
    bias = register_parameter("bias", build.empty({width}));
  } else {
    weight = at::ones({width}, at::TensorOptions().dtype(build.dtype).device(build.device));
  }
}

at::Tensor LayerNorm::forward(const at::Tensor& x) const { return kernels::layer_norm(x, weight, bias, eps_); }

at::Tensor LayerNorm::forward(Residual& x) const {
  if (!x.update.defined()) return forward(x.stream);
  auto [sum, normed] = kernels::add_layer_norm(x.update, x.stream, weight, bias, eps_);
  x = {sum, {}};
  return normed;
}

RMSNorm::RMSNorm(int64_t width, double eps, const Build& build, bool unit_offset)
    : eps_(eps), unit_offset_(unit_offset) {
  weight = register_parameter("weight", build.empty({width}));
}

at::Tensor RMSNorm::forward(const at::Tensor& x) const { return kernels::rms_norm(x, weight, eps_, unit_offset_); }

at::Tensor RMSNorm::forward(Residual& x) const {
  if (!x.update.defined()) return forward(x.stream);
  auto [sum, normed] = kernels::add_rms_norm(x.update, x.stream, weight, eps_, unit_offset_);
  x = {sum, {}};
  return normed;
}

at::Tensor dropout(const at::Tensor& x, double p, bool training) {
  return training ? kernels::dropout(x, p) : x;
}

}  // namespace llmtk::nn
