#include "kernels/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/few_rows_impl.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// float32 elements widened at a time: bounds the scratch memory.
constexpr int64_t kPanel = int64_t{1} << 20;

bool needs_widening(const at::Tensor& x) {
  return x.scalar_type() == at::kBFloat16 && x.is_cpu() && !fast_bfloat16_products() && backend() == Backend::automatic;
}

/// out (+)= product + bias, rounded once.
void finish(at::Tensor out, at::Tensor product, const at::Tensor& bias, bool accumulate) {
  if (bias.defined()) product.add_(bias);
  if (accumulate) product.add_(out);
  out.copy_(product);
}

/// out = a b (+ bias) or out += a b, for bfloat16, through float32: the largest dimension is cut into panels.
void wide_mm(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias, bool accumulate) {
  const int64_t M = a.size(0), K = a.size(1), N = b.size(1);
  if (K > M && K > N) {
    const int64_t step = std::max<int64_t>(64, kPanel / std::max(M, N));
    at::Tensor product = at::zeros({M, N}, out.options().dtype(at::kFloat));
    for (int64_t k = 0; k < K; k += step) {
      const int64_t n = std::min(step, K - k);
      product.addmm_(a.narrow(1, k, n).to(at::kFloat), b.narrow(0, k, n).to(at::kFloat));
    }
    finish(out, product, bias, accumulate);
  } else if (N >= M) {
    const int64_t step = std::max<int64_t>(64, kPanel / std::max(K, M));
    const at::Tensor wide = a.to(at::kFloat);
    for (int64_t j = 0; j < N; j += step) {
      const int64_t n = std::min(step, N - j);
      finish(out.narrow(1, j, n), at::mm(wide, b.narrow(1, j, n).to(at::kFloat)),
             bias.defined() ? bias.narrow(0, j, n) : bias, accumulate);
    }
  } else {
    const int64_t step = std::max<int64_t>(64, kPanel / std::max(K, N));
    const at::Tensor wide = b.to(at::kFloat);
    for (int64_t i = 0; i < M; i += step) {
      const int64_t n = std::min(step, M - i);
      finish(out.narrow(0, i, n), at::mm(a.narrow(0, i, n).to(at::kFloat), wide), bias, accumulate);
    }
  }
}

/// Room for x weight^T: [..., O].
at::Tensor empty_product(const at::Tensor& x, const at::Tensor& weight) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return at::empty(shape, x.options());
}

at::Tensor wide_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const at::Tensor y = empty_product(x, weight);
  at::Tensor rows = y.view({-1, weight.size(0)});
  wide_mm(rows, x.reshape({-1, x.size(-1)}), weight.t(), bias, false);
  return y;
}

struct WideLinear : torch::autograd::Function<WideLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    return wide_linear(x, weight, bias.value_or(at::Tensor()));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const at::Tensor dy = gradients[0].reshape({-1, weight.size(0)});
    variable_list result(3);
    if (ctx->needs_input_grad(0)) {
      at::Tensor dx = at::empty({dy.size(0), weight.size(1)}, x.options());
      wide_mm(dx, dy, weight, {}, false);
      result[0] = dx.view(x.sizes());
    }
    if (ctx->needs_input_grad(1)) {
      result[1] = at::empty_like(weight, at::MemoryFormat::Contiguous);
      wide_mm(result[1], dy.t(), x.reshape({-1, x.size(-1)}), {}, false);
    }
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) result[2] = dy.sum(0);
    return result;
  }
};

/// Whether few_rows takes it: some rows, and a weight that lies in memory row by row or column by column.
bool has_few_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return x.is_cpu() && x.numel() <= FewRows::kMost * x.size(-1) && all_fused(x, weight, bias) &&
         (weight.is_contiguous() || weight.t().is_contiguous()) && !wants_gradient(x, weight, bias);
}

at::Tensor few_rows_linear(const at::Tensor& x_any, const at::Tensor& weight, const at::Tensor& bias_any) {
  const at::Tensor x = x_any.contiguous(), bias = bias_any.defined() ? bias_any.contiguous() : bias_any;
  const at::Tensor y = empty_product(x, weight);
  const FewRows f{.type = type_of(x),
                  .M = x.numel() / x.size(-1),
                  .N = weight.size(0),
                  .K = weight.size(1),
                  .x = data(x),
                  .weight = data(weight),
                  .transposed = !weight.is_contiguous(),
                  .bias = data(bias),
                  .y = mutable_data(y)};
  parallel_step((f.N + FewRows::kColumns - 1) / FewRows::kColumns, f.K * FewRows::kColumns,
                [f](int64_t begin, int64_t end) { cpu::few_rows(f, begin, end); }, {x, weight, bias, y});
  return y;
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const bool empty = x.numel() == 0 || weight.numel() == 0;
  if (!empty && has_few_rows(x, weight, bias)) return few_rows_linear(x, weight, bias);
  if (empty || !needs_widening(x) || weight.scalar_type() != at::kBFloat16)
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
  if (!wants_gradient(x, weight, bias)) return wide_linear(x, weight, bias);
  return WideLinear::apply(x, weight, optional(bias));
}

void mm_out(at::Tensor& out, const at::Tensor& a, const at::Tensor& b, bool accumulate) {
  const at::NoGradGuard no_grad;
  if (needs_widening(a)) return wide_mm(out, a, b, {}, accumulate);
  if (accumulate)
    at::addmm_out(out, out, a, b);
  else
    at::mm_out(out, a, b);
}

}  // namespace llmtk::kernels
