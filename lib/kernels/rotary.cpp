#include "kernels/rotary.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/rotary_impl.h"
#include "kernels/tensors.h"

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

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Whether x [B, H, T, D] lies in memory as [B, T, H, D].
bool time_major(const at::Tensor& x) { return x.stride(1) < x.stride(2); }

at::Tensor rotate(const at::Tensor& x_any, const at::Tensor& cos_any, const at::Tensor& sin_any, bool inverse,
                  bool time_major_result) {
  const at::Tensor x = x_any.stride(-1) == 1 ? x_any : x_any.contiguous();
  const at::Tensor cos = cos_any.contiguous(), sin = sin_any.contiguous();
  const int64_t B = x.size(0), H = x.size(1), T = x.size(2), D = x.size(3);
  const at::Tensor y = time_major_result ? at::empty({B, T, H, D}, x.options()).transpose(1, 2)  // [B, H, T, D]
                                         : at::empty({B, H, T, D}, x.options());
  if (y.numel() == 0) return y;
  Rotary r{.type = type_of(x), .angle_type = type_of(cos), .inverse = inverse, .B = B, .H = H, .T = T, .D = D};
  r.R = cos.size(-1);
  r.x = data(x);
  r.x_batch = x.stride(0), r.x_head = x.stride(1), r.x_time = x.stride(2);
  r.y = mutable_data(y);
  r.y_batch = y.stride(0), r.y_head = y.stride(1), r.y_time = y.stride(2);
  r.cos = data(cos);
  r.sin = data(sin);
  r.angle_batch = cos.dim() == 3 && cos.size(0) > 1 ? cos.stride(0) : 0;
  r.angle_time = r.R;
#ifdef LLMTK_WITH_CUDA
  if (x.is_cuda()) {
    const OnDevice device(x);
    cuda::rotary(r, device.stream());
    return y;
  }
#endif
  parallel_step(B * T, H * D, [r](int64_t begin, int64_t end) { cpu::rotary(r, begin, end); }, {x, y, cos, sin});
  return y;
}

struct RotaryFunction : torch::autograd::Function<RotaryFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos,
                               const at::Tensor& sin) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["q"] = time_major(q);
    ctx->saved_data["k"] = time_major(k);
    return {rotate(q, cos, sin, false, time_major(q)), rotate(k, cos, sin, false, time_major(k))};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    variable_list result(4);
    if (gradients[0].defined())
      result[0] = rotate(gradients[0], saved[0], saved[1], true, ctx->saved_data["q"].toBool());
    if (gradients[1].defined())
      result[1] = rotate(gradients[1], saved[0], saved[1], true, ctx->saved_data["k"].toBool());
    return result;
  }
};

void check_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  LLMTK_CHECK(x.dim() == 4 && (cos.dim() == 2 || cos.dim() == 3) && cos.sizes() == sin.sizes(), "x is ", x.sizes(),
              ", cos is ", cos.sizes(), ", sin is ", sin.sizes());
  LLMTK_CHECK(cos.size(-1) % 2 == 0 && cos.size(-1) <= x.size(3) && cos.size(-2) == x.size(2), "x is ", x.sizes(),
              ", cos is ", cos.sizes());
  LLMTK_CHECK(cos.dim() == 2 || cos.size(0) == 1 || cos.size(0) == x.size(0), "x is ", x.sizes(), ", cos is ",
              cos.sizes());
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> rotary(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cos,
                                          const at::Tensor& sin) {
  check_rotary(q, cos, sin);
  check_rotary(k, cos, sin);
  if (!all_fused(q, k) || !all_fused(cos, sin) || q.device() != cos.device()) return reference::rotary(q, k, cos, sin);
  if (!wants_gradient(q, k))
    return {rotate(q, cos, sin, false, time_major(q)), rotate(k, cos, sin, false, time_major(k))};
  const variable_list out = RotaryFunction::apply(q, k, cos, sin);
  return {out[0], out[1]};
}

}  // namespace llmtk::kernels
