#include "quant/gptq.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"

namespace llmtk::quant {
namespace {

using at::Tensor;
using kernels::IntegerFormat;
using kernels::IntegerScales;

/// The upper Cholesky factor of the damped Hessian's inverse. More damping where that has none.
Tensor inverse_factor(const Tensor& hessian, double damping) {
  const Tensor eye = at::eye(hessian.size(0), hessian.options());
  const double mean = hessian.diagonal().mean().item<double>();
  for (const double more : {1.0, 10.0, 100.0}) {
    const auto [factor, failed] = at::linalg_cholesky_ex(hessian + eye * (damping * more * mean));
    if (failed.item<int>() != 0) continue;
    const auto [upper, failed_too] = at::linalg_cholesky_ex(at::cholesky_inverse(factor), /*upper=*/true);
    if (failed_too.item<int>() == 0 && upper.isfinite().all().item<bool>()) return upper;
  }
  throw Error(Exit::data, {.what = "the Hessian of the calibration text cannot be inverted",
                           .hint = "give more text, or a larger gptq.damping"});
}

/// Scales of each group of rows of w (columns of the matrix), [in, out]: [G, out].
IntegerScales group_scales(const Tensor& w, int64_t group, const IntegerFormat& format, c10::ScalarType dtype) {
  const Tensor groups = w.view({-1, group, w.size(1)});
  return kernels::integer_scales(groups.amin(1).to(dtype), groups.amax(1).to(dtype), format);
}

IntegerScales row_of(const IntegerScales& scales, int64_t g) {
  return {scales.scales[g], scales.zero_points.defined() ? scales.zero_points[g] : Tensor()};
}

void put_row(IntegerScales& scales, int64_t g, const IntegerScales& row) {
  scales.scales[g].copy_(row.scales);
  if (scales.zero_points.defined()) scales.zero_points[g].copy_(row.zero_points);
}

/// What codes stand for, float32.
Tensor values_of(const Tensor& codes, const IntegerScales& scales) {
  const Tensor wide = codes.to(at::kFloat);
  return (scales.zero_points.defined() ? wide - scales.zero_points.to(at::kFloat) : wide) *
         scales.scales.to(at::kFloat);
}

}  // namespace

double output_error(const Tensor& weight, const Tensor& rounded, const Tensor& hessian) {
  const Tensor w = weight.to(at::kFloat), lost = w - rounded.to(at::kFloat);
  const auto squares = [&](const Tensor& m) { return at::mm(m, hessian).mul_(m).sum(at::kDouble).item<double>(); };
  const double whole = squares(w);
  return whole > 0 ? std::sqrt(std::max(0.0, squares(lost)) / whole) : 0;
}

GptqResult gptq(const Tensor& weight, const Tensor& hessian, const IntegerFormat& format, c10::ScalarType scale_dtype,
                const GptqOptions& options) {
  const at::NoGradGuard no_grad;
  const int64_t K = weight.size(1), N = weight.size(0), group = format.group_size ? format.group_size : K;
  LLMTK_CHECK(K % group == 0 && hessian.sizes() == at::IntArrayRef({K, K}), K, " columns in groups of ", group,
              ", a Hessian of ", hessian.sizes());
  const bool own_groups = format.group_size > 0 && !options.desc_act;  // scales are found on the way
  const int64_t block = own_groups ? (options.block_size + group - 1) / group * group : options.block_size;

  // [in, out]: a column of the matrix lies together. A copy in any case: the weight may lie in a mapped file.
  Tensor w = weight.to(at::kFloat).t().clone(at::MemoryFormat::Contiguous);
  Tensor h = hessian.clone();
  const Tensor unused = h.diagonal() == 0;  // inputs that are always 0
  h.diagonal().masked_fill_(unused, 1);
  w.masked_fill_(unused.unsqueeze(1), 0);

  IntegerScales scales = group_scales(w, group, format, scale_dtype);  // [G, out]
  Tensor order;
  if (options.desc_act) {
    order = std::get<1>(at::sort(h.diagonal(), /*stable=*/true, 0, /*descending=*/true));
    w = w.index_select(0, order);
    h = h.index_select(0, order).index_select(1, order);
  }
  const Tensor factor = inverse_factor(h, options.damping);
  const Tensor places = order.defined() ? order.to(at::kCPU) : at::arange(K, at::kLong);
  const int64_t* place = places.const_data_ptr<int64_t>();
  Tensor codes = at::empty({K, N}, w.options().dtype(at::kChar));

  for (int64_t begin = 0; begin < K; begin += block) {
    const int64_t count = std::min(block, K - begin);
    Tensor part = w.narrow(0, begin, count);  // a view
    const Tensor own = factor.narrow(0, begin, count);
    Tensor errors = at::empty({count, N}, w.options());
    for (int64_t i = 0; i < count; ++i) {
      const int64_t column = place[begin + i], g = column / group;
      if (own_groups && column % group == 0)
        put_row(scales, g, row_of(group_scales(w.narrow(0, column, group), group, format, scale_dtype), 0));
      const IntegerScales scale = row_of(scales, g);
      const Tensor code = kernels::integer_codes(part[i], scale, format.bits);
      codes[column].copy_(code);
      Tensor error = (part[i] - values_of(code, scale)) / own[i][begin + i];
      part.narrow(0, i, count - i)
          .addmm_(own[i].narrow(0, begin + i, count - i).unsqueeze(1), error.unsqueeze(0), 1, -1);
      errors[i].copy_(error);
    }
    const int64_t end = begin + count;
    if (end < K) w.narrow(0, end, K - end).addmm_(own.narrow(1, end, K - end).t(), errors, 1, -1);
  }

  const IntegerScales by_row{scales.scales.t(), scales.zero_points.defined() ? scales.zero_points.t() : Tensor()};
  GptqResult result{kernels::integer_matrix(codes.t(), by_row, format)};
  result.output_error = output_error(weight, kernels::dequantize(result.matrix, at::kFloat), hessian);
  return result;
}

}  // namespace llmtk::quant
