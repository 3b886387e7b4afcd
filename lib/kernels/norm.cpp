#include "kernels/norm.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/backend.h"

namespace llmtk::kernels {

namespace reference {

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor centred = wide - wide.mean(-1, true);
  const at::Tensor normed = centred * at::rsqrt(centred.square().mean(-1, true) + eps);
  at::Tensor y = normed * weight.to(at::kFloat);
  if (bias.defined()) y = y + bias.to(at::kFloat);
  return y.to(x.scalar_type());
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  return weight * normed.to(x.scalar_type());
}

}  // namespace reference

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return reference::layer_norm(x, weight, bias, eps);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return reference::rms_norm(x, weight, eps);
}

std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& residual,
                                                  const at::Tensor& weight, const at::Tensor& bias, double eps) {
  const at::Tensor sum = x + residual;
  return {sum, layer_norm(sum, weight, bias, eps)};
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                                const at::Tensor& weight, double eps) {
  const at::Tensor sum = x + residual;
  return {sum, rms_norm(sum, weight, eps)};
}

}  // namespace llmtk::kernels
