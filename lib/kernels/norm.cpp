#include "kernels/norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/norm_impl.h"
#include "kernels/tensors.h"

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

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor normed = wide * at::rsqrt(wide.square().mean(-1, true) + eps);
  if (unit_offset) return (normed * (1 + weight.to(at::kFloat))).to(x.scalar_type());
  return weight * normed.to(x.scalar_type());
}

}  // namespace reference

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum class Kind { layer, rms, rms_unit_offset };

struct Normed {
  at::Tensor sum, y, mean, rstd;
};

Normed forward(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, const at::Tensor& bias,
               double eps, Kind kind) {
  Normed out;
  const bool rms = kind != Kind::layer;
  const int64_t H = weight.numel(), rows = H == 0 ? 0 : x.numel() / H;
  const at::Tensor rows_x = x.contiguous();
  const at::Tensor rows_residual = residual.defined() ? residual.contiguous() : residual;
  const at::Tensor scale = weight.contiguous();
  const at::Tensor shift = bias.defined() ? bias.contiguous() : bias;
  out.y = at::empty_like(rows_x);
  out.sum = residual.defined() ? at::empty_like(rows_x) : rows_x;
  if (!rms) out.mean = at::empty({rows}, x.options().dtype(at::kFloat));
  out.rstd = at::empty({rows}, x.options().dtype(at::kFloat));
  if (rows == 0) return out;
  NormForward n{.type = type_of(x), .rms = rms, .unit_offset = kind == Kind::rms_unit_offset, .rows = rows, .H = H};
  n.x = data(rows_x);
  n.residual = data(rows_residual);
  n.sum = residual.defined() ? mutable_data(out.sum) : nullptr;
  n.weight = data(scale);
  n.bias = data(shift);
  n.y = mutable_data(out.y);
  n.mean = static_cast<float*>(mutable_data(out.mean));
  n.rstd = static_cast<float*>(mutable_data(out.rstd));
  n.eps = static_cast<float>(eps);
#ifdef LLMTK_WITH_CUDA
  if (x.is_cuda()) {
    const OnDevice device(x);
    cuda::norm_forward(n, device.stream());
    return out;
  }
#endif
  parallel_step(rows, H, [n](int64_t begin, int64_t end) { cpu::norm_forward(n, begin, end); },
                {rows_x, rows_residual, scale, shift, out.y, out.sum, out.mean, out.rstd});
  return out;
}

/// Slices of rows whose gradients are summed apart: a number that does not depend on the number of threads.
int64_t count_slices(int64_t rows, bool is_cuda) {
  return is_cuda ? std::clamp<int64_t>(rows / 16, 1, 256) : std::clamp<int64_t>(rows / 32, 1, 64);
}

/// Gradients of x (which is also residual's), weight and bias.
variable_list backward(const at::Tensor& dy, const at::Tensor& dsum, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& mean, const at::Tensor& rstd, Kind kind, bool with_weight, bool with_bias) {
  const bool rms = kind != Kind::layer;
  const int64_t H = weight.numel(), rows = rstd.numel();
  const at::Tensor rows_dy = dy.contiguous(), scale = weight.contiguous();
  const at::Tensor rows_dsum = dsum.defined() ? dsum.contiguous() : dsum;
  const at::Tensor dx = at::empty_like(x);
  if (rows == 0) return {dx, at::zeros_like(weight), with_bias ? at::zeros_like(weight) : at::Tensor()};
  const int64_t slices = count_slices(rows, x.is_cuda());
  const auto wide = x.options().dtype(at::kFloat);
  const at::Tensor weight_parts = with_weight ? at::empty({slices, H}, wide) : at::Tensor();
  const at::Tensor bias_parts = with_bias ? at::empty({slices, H}, wide) : at::Tensor();
  const at::Tensor dweight = with_weight ? at::empty_like(scale) : at::Tensor();
  const at::Tensor dbias = with_bias ? at::empty_like(scale) : at::Tensor();
  NormBackward n{.type = type_of(x), .rms = rms, .unit_offset = kind == Kind::rms_unit_offset, .rows = rows, .H = H};
  n.dy = data(rows_dy);
  n.dsum = data(rows_dsum);
  n.x = data(x);
  n.weight = data(scale);
  n.mean = static_cast<const float*>(data(mean));
  n.rstd = static_cast<const float*>(data(rstd));
  n.dx = mutable_data(dx);
  n.dweight_parts = static_cast<float*>(mutable_data(weight_parts));
  n.dbias_parts = static_cast<float*>(mutable_data(bias_parts));
  n.slices = slices;
#ifdef LLMTK_WITH_CUDA
  if (x.is_cuda()) {
    const OnDevice device(x);
    cuda::norm_backward(n, device.stream());
    if (with_weight) cuda::norm_reduce(n.dweight_parts, slices, H, n.type, mutable_data(dweight), device.stream());
    if (with_bias) cuda::norm_reduce(n.dbias_parts, slices, H, n.type, mutable_data(dbias), device.stream());
    return {dx, dweight, dbias};
  }
#endif
  parallel_rows(slices, rows / slices * H, [&](int64_t begin, int64_t end) { cpu::norm_backward(n, begin, end); });
  if (with_weight) cpu::norm_reduce(n.dweight_parts, slices, H, n.type, mutable_data(dweight));
  if (with_bias) cpu::norm_reduce(n.dbias_parts, slices, H, n.type, mutable_data(dbias));
  return {dx, dweight, dbias};
}

/// Inputs: x, residual or none, weight, bias or none. Outputs: {y}, or {sum, y} with a residual.
struct NormFunction : torch::autograd::Function<NormFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x,
                               const std::optional<at::Tensor>& maybe_residual, const at::Tensor& weight,
                               const std::optional<at::Tensor>& maybe_bias, double eps, int64_t kind) {
    const at::Tensor residual = maybe_residual.value_or(at::Tensor()), bias = maybe_bias.value_or(at::Tensor());
    const Normed out = kernels::forward(x, residual, weight, bias, eps, static_cast<Kind>(kind));
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({out.sum, weight, out.mean, out.rstd});
    ctx->saved_data["kind"] = kind;
    ctx->saved_data["residual"] = residual.defined();
    ctx->saved_data["bias"] = bias.defined();
    return residual.defined() ? variable_list{out.sum, out.y} : variable_list{out.y};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const bool has_residual = ctx->saved_data["residual"].toBool();
    const at::Tensor dy = gradients.back();
    const at::Tensor dsum = has_residual ? gradients.front() : at::Tensor();
    variable_list result(6);
    if (!dy.defined()) {
      result[0] = result[1] = dsum;
      return result;
    }
    const size_t weight_index = has_residual ? 2 : 1;
    const bool with_bias = ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(weight_index + 1);
    const auto kind = static_cast<Kind>(ctx->saved_data["kind"].toInt());
    const variable_list d = kernels::backward(dy, dsum, saved[0], saved[1], saved[2], saved[3], kind,
                                              ctx->needs_input_grad(weight_index), with_bias);
    result[0] = d[0];
    if (has_residual) result[1] = d[0];
    result[2] = d[1];
    result[3] = d[2];
    return result;
  }
};

void check_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  LLMTK_CHECK(x.dim() >= 1 && weight.dim() == 1 && x.size(-1) == weight.size(0), "x is ", x.sizes(), ", weight is ",
              weight.sizes());
  LLMTK_CHECK(!bias.defined() || bias.sizes() == weight.sizes(), "bias is ", bias.sizes(), ", weight is ",
              weight.sizes());
}

at::Tensor plain_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps, Kind kind) {
  if (kind == Kind::layer) return reference::layer_norm(x, weight, bias, eps);
  return reference::rms_norm(x, weight, eps, kind == Kind::rms_unit_offset);
}

std::tuple<at::Tensor, at::Tensor> add_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                                            const at::Tensor& bias, double eps, Kind kind) {
  check_norm(x, weight, bias);
  LLMTK_CHECK(x.sizes() == residual.sizes(), "x is ", x.sizes(), ", residual is ", residual.sizes());
  if (!all_fused(x, residual, weight, bias)) {
    const at::Tensor sum = x + residual;
    return {sum, plain_norm(sum, weight, bias, eps, kind)};
  }
  if (!wants_gradient(x, residual, weight, bias)) {
    const Normed out = forward(x, residual, weight, bias, eps, kind);
    return {out.sum, out.y};
  }
  const variable_list out =
      NormFunction::apply(x, optional(residual), weight, optional(bias), eps, static_cast<int64_t>(kind));
  return {out[0], out[1]};
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps, Kind kind) {
  check_norm(x, weight, bias);
  if (!all_fused(x, weight, bias)) return plain_norm(x, weight, bias, eps, kind);
  if (!wants_gradient(x, weight, bias)) return forward(x, {}, weight, bias, eps, kind).y;
  return NormFunction::apply(x, std::optional<at::Tensor>(), weight, optional(bias), eps,
                             static_cast<int64_t>(kind))[0];
}

Kind rms_kind(bool unit_offset) { return unit_offset ? Kind::rms_unit_offset : Kind::rms; }

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return norm(x, weight, bias, eps, Kind::layer);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool unit_offset) {
  return norm(x, weight, {}, eps, rms_kind(unit_offset));
}

std::tuple<at::Tensor, at::Tensor> add_layer_norm(const at::Tensor& x, const at::Tensor& residual,
                                                  const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return add_norm(x, residual, weight, bias, eps, Kind::layer);
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                                const at::Tensor& weight, double eps, bool unit_offset) {
  return add_norm(x, residual, weight, {}, eps, rms_kind(unit_offset));
}

}  // namespace llmtk::kernels
