#include "kernels/rotary.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "kernels/backend.h"

namespace llmtk::kernels {

namespace reference {
namespace {

at::Tensor rotate(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t rotated = cos.size(-1);
  const at::Tensor part = x.narrow(-1, 0, rotated).to(at::kFloat);
  const at::Tensor first = part.narrow(-1, 0, rotated / 2);
  const at::Tensor second = part.narrow(-1, rotated / 2, rotated / 2);
  at::Tensor c = cos.to(at::kFloat), s = sin.to(at::kFloat);
  if (c.dim() == 3) c = c.unsqueeze(1), s = s.unsqueeze(1);  // [B, 1, T, R]
  const at::Tensor y = (part * c + at::cat({-second, first}, -1) * s).to(x.scalar_type());
  if (rotated == x.size(-1)) return y;
  return at::cat({y, x.narrow(-1, rotated, x.size(-1) - rotated)}, -1);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rotary(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos,
                                          const at::Tensor& sin) {
  return {rotate(q, cos, sin), rotate(k, cos, sin)};
}

}  // namespace reference

std::tuple<at::Tensor, at::Tensor> rotary(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos,
                                          const at::Tensor& sin) {
  return reference::rotary(q, k, cos, sin);
}

}  // namespace llmtk::kernels
