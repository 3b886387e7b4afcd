#include "kernels/activation.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/activation_impl.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {

namespace reference {

at::Tensor gelu(const at::Tensor& x, bool tanh_approximation) {
  return at::gelu(x, tanh_approximation ? "tanh" : "none");
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return (at::silu(gate.to(at::kFloat)) * up.to(at::kFloat)).to(gate.scalar_type());
}

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, bool tanh_approximation) {
  return (gelu(gate.to(at::kFloat), tanh_approximation) * up.to(at::kFloat)).to(gate.scalar_type());
}

}  // namespace reference

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A tensor as rows at a fixed distance; copied where it does not lie so.
struct Rows {
  at::Tensor tensor;
  int64_t rows = 0, columns = 0, stride = 0;
};

Rows rows_of(const at::Tensor& x) {
  if (x.dim() == 0) return {x, 1, 1, 1};
  const int64_t columns = x.size(-1), rows = columns == 0 ? 0 : x.numel() / columns;
  if (x.is_contiguous()) return {x, rows, columns, columns};
  bool regular = x.stride(-1) == 1 && x.dim() >= 2;
  for (int64_t d = x.dim() - 3; d >= 0 && regular; --d) regular = x.stride(d) == x.stride(d + 1) * x.size(d + 1);
  if (regular) return {x, rows, columns, x.stride(-2)};
  return {x.contiguous(), rows, columns, columns};
}

at::Tensor forward(const at::Tensor& x, const at::Tensor& up, Activation activation) {
  const Rows rows = rows_of(x), up_rows = up.defined() ? rows_of(up) : Rows();
  const at::Tensor y = at::empty(x.sizes(), x.options());
  if (y.numel() == 0) return y;
  ActivationForward a{.type = type_of(x), .activation = activation, .rows = rows.rows, .columns = rows.columns};
  a.x = data(rows.tensor);
  a.x_stride = rows.stride;
  a.up = data(up_rows.tensor);
  a.up_stride = up_rows.stride;
  a.y = mutable_data(y);
#ifdef LLMTK_WITH_CUDA
  if (x.is_cuda()) {
    const OnDevice device(x);
    cuda::activation_forward(a, device.stream());
    return y;
  }
#endif
  parallel_step(a.rows, a.columns, [a](int64_t begin, int64_t end) { cpu::activation_forward(a, begin, end); },
                {rows.tensor, up_rows.tensor, y});
  return y;
}

std::pair<at::Tensor, at::Tensor> backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& up,
                                           Activation activation) {
  const Rows rows = rows_of(x), up_rows = up.defined() ? rows_of(up) : Rows();
  const at::Tensor rows_dy = dy.contiguous();
  const at::Tensor dx = at::empty(x.sizes(), x.options());
  const at::Tensor dup = up.defined() ? at::empty(x.sizes(), x.options()) : at::Tensor();
  if (dx.numel() == 0) return {dx, dup};
  ActivationBackward a{.type = type_of(x), .activation = activation, .rows = rows.rows, .columns = rows.columns};
  a.dy = data(rows_dy);
  a.x = data(rows.tensor);
  a.x_stride = rows.stride;
  a.up = data(up_rows.tensor);
  a.up_stride = up_rows.stride;
  a.dx = mutable_data(dx);
  a.dup = mutable_data(dup);
#ifdef LLMTK_WITH_CUDA
  if (x.is_cuda()) {
    const OnDevice device(x);
    cuda::activation_backward(a, device.stream());
    return {dx, dup};
  }
#endif
  parallel_rows(a.rows, a.columns, [&](int64_t begin, int64_t end) { cpu::activation_backward(a, begin, end); });
  return {dx, dup};
}

/// Inputs: x, up or none.
struct ActivationFunction : torch::autograd::Function<ActivationFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& maybe_up,
                            int64_t activation) {
    const at::Tensor up = maybe_up.value_or(at::Tensor());
    ctx->save_for_backward({x, up});
    ctx->saved_data["activation"] = activation;
    return kernels::forward(x, up, static_cast<Activation>(activation));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    const auto [dx, dup] = kernels::backward(gradients[0], saved[0], saved[1], activation);
    return {dx, dup, at::Tensor()};
  }
};

at::Tensor activate(const at::Tensor& x, const at::Tensor& up, Activation activation) {
  if (!wants_gradient(x, up)) return forward(x, up, activation);
  return ActivationFunction::apply(x, optional(up), static_cast<int64_t>(activation));
}

void check_gated(const at::Tensor& gate, const at::Tensor& up) {
  LLMTK_CHECK(gate.sizes() == up.sizes(), "gate is ", gate.sizes(), ", up is ", up.sizes());
}

}  // namespace

at::Tensor gelu(const at::Tensor& x, bool tanh_approximation) {
  if (!all_fused(x)) return reference::gelu(x, tanh_approximation);
  return activate(x, {}, tanh_approximation ? Activation::gelu_tanh : Activation::gelu);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  check_gated(gate, up);
  if (!all_fused(gate, up)) return reference::swiglu(gate, up);
  return activate(gate, up, Activation::silu);
}

at::Tensor geglu(const at::Tensor& gate, const at::Tensor& up, bool tanh_approximation) {
  check_gated(gate, up);
  if (!all_fused(gate, up)) return reference::geglu(gate, up, tanh_approximation);
  return activate(gate, up, tanh_approximation ? Activation::gelu_tanh : Activation::gelu);
}

}  // namespace llmtk::kernels
