#include "kernels/integer.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "core/error.h"
#include "kernels/integer_impl.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kWordBits = 32;
/// Integers up to 2^24 are exact in float32: so many products of 8-bit codes may be summed there.
constexpr int64_t kExactTerms = 1024, kExactTermsWithZeroPoints = 512;

double lowest_code(int bits) { return -static_cast<double>(1 << (bits - 1)); }
double highest_code(int bits) { return static_cast<double>((1 << (bits - 1)) - 1); }

/// int8 [R, C] -> int32 [R, ceil(C * bits / 32)].
at::Tensor pack_codes(const at::Tensor& codes, int bits) {
  const int64_t per_word = kWordBits / bits, columns = codes.size(1);
  const int64_t padding = (per_word - columns % per_word) % per_word;
  at::Tensor bytes = codes.contiguous().view(at::kByte) + (1 << (bits - 1));  // modulo 256
  if (padding > 0) bytes = at::constant_pad_nd(bytes, {0, padding});
  if (bits == 4) {
    const at::Tensor pairs = bytes.view({bytes.size(0), -1, 2});
    bytes = pairs.select(2, 0).bitwise_or(pairs.select(2, 1).bitwise_left_shift(4));
  }
  return bytes.contiguous().view(at::kInt);
}

/// And back.
at::Tensor unpack_codes(const at::Tensor& words, int bits, int64_t columns) {
  const at::Tensor bytes = words.contiguous().view(at::kByte);  // [R, 4 * words]
  const at::Tensor all =
      bits == 4 ? at::stack({bytes.bitwise_and(15), bytes.bitwise_right_shift(4)}, 2).flatten(1) : bytes;
  // As bytes with two's complement: code + 8 - 8, code + 128 - 128 (modulo 256).
  return (all.narrow(1, 0, columns) - (1 << (bits - 1))).view(at::kChar);
}

/// Some rows' codes, int8 [rows, K].
at::Tensor codes_of(const IntegerMatrix& m, const at::Tensor& rows) {
  return m.format.packed ? unpack_codes(rows, m.format.bits, m.columns) : rows;
}

/// int8 [N, G]; undefined where symmetric.
at::Tensor zero_points_of(const IntegerMatrix& m) {
  if (m.plain_zero_points.defined()) return m.plain_zero_points;
  if (!m.zero_points.defined() || !m.format.packed) return m.zero_points;
  return unpack_codes(m.zero_points.t(), m.format.bits, m.rows).t();
}

/// (codes - zero points) * scales, in float32, [n, K]. codes: int8 [n, K]; the others [n, G].
at::Tensor scaled(const at::Tensor& codes, const at::Tensor& zero_points, const at::Tensor& scales) {
  const at::Tensor groups = codes.to(at::kFloat).view({codes.size(0), scales.size(1), -1});
  at::Tensor w = zero_points.defined() ? groups - zero_points.to(at::kFloat).unsqueeze(2) : groups;
  return (w * scales.to(at::kFloat).unsqueeze(2)).view(codes.sizes());
}

at::Tensor rows_of(const at::Tensor& t, int64_t begin, int64_t count) {
  return t.defined() ? t.narrow(0, begin, count) : t;
}

/// f(begin, count) over rows of W, so many at a time that what is unpacked of them stays in a CPU's caches.
template <class F>
void for_row_tiles(const IntegerMatrix& m, const F& f) {
  const int64_t elements = m.codes.is_cuda() ? int64_t{32} << 20 : int64_t{1} << 18;
  const int64_t step = std::clamp<int64_t>(elements / m.columns, 16, m.rows);
  for (int64_t begin = 0; begin < m.rows; begin += step) f(begin, std::min(step, m.rows - begin));
}

/// Rows of W as float32, rounded to `dtype` and widened again where that is narrower.
at::Tensor tile_of(const IntegerMatrix& m, const at::Tensor& zero_points, int64_t begin, int64_t count,
                   c10::ScalarType dtype) {
  const at::Tensor codes = codes_of(m, m.codes.narrow(0, begin, count));
  return scaled(codes, rows_of(zero_points, begin, count), m.scales.narrow(0, begin, count)).to(dtype);
}

c10::ScalarType computed_in(const at::Tensor& x) {
  const bool half = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
  return half && x.is_cpu() && !(x.scalar_type() == at::kBFloat16 && fast_bfloat16_products()) ? at::kFloat
                                                                                               : x.scalar_type();
}

/// x W^T + bias, [M, K] -> [M, N], with W as dequantize(x's dtype) gives it.
at::Tensor weight_only(const at::Tensor& x, const IntegerMatrix& m, const at::Tensor& bias) {
  const at::Tensor a = x.to(computed_in(x)), zero_points = zero_points_of(m);
  const at::Tensor y = at::empty({x.size(0), m.rows}, x.options());
  for_row_tiles(m, [&](int64_t begin, int64_t count) {
    const at::Tensor w = tile_of(m, zero_points, begin, count, x.scalar_type()).to(a.scalar_type());
    const at::Tensor shift = rows_of(bias, begin, count);
    y.narrow(1, begin, count).copy_(shift.defined() ? at::linear(a, w, shift.to(a.scalar_type())) : at::linear(a, w));
  });
  return y;
}

/// dy W: [M, N] -> [M, K].
at::Tensor weight_only_backward(const at::Tensor& dy, const IntegerMatrix& m) {
  const at::Tensor a = dy.to(at::kFloat), zero_points = zero_points_of(m);
  at::Tensor dx = at::zeros({dy.size(0), m.columns}, a.options());
  for_row_tiles(m, [&](int64_t begin, int64_t count) {
    const at::Tensor w = tile_of(m, zero_points, begin, count, dy.scalar_type()).to(at::kFloat);
    dx.addmm_(a.narrow(1, begin, count), w);
  });
  return dx.to(dy.scalar_type());
}

/// a b^T of integers in float32, exact; as float32 once more. a: [M, K], b: [n, K].
at::Tensor integer_product(const at::Tensor& a, const at::Tensor& b, int64_t exact_terms) {
  const int64_t K = a.size(1);
  if (K <= exact_terms) return at::mm(a, b.t());
  at::Tensor sum = at::zeros({a.size(0), b.size(0)}, a.options().dtype(at::kInt));
  for (int64_t k = 0; k < K; k += exact_terms) {
    const int64_t terms = std::min(exact_terms, K - k);
    sum += at::mm(a.narrow(1, k, terms), b.narrow(1, k, terms).t()).to(at::kInt);
  }
  return sum.to(at::kFloat);
}

/// The product with rounded rows, [M, K] -> [M, N]. With one group per row sums are those of integers; else each
/// group's integers times their scale are summed in float32.
at::Tensor with_dynamic_activations(const at::Tensor& x, const IntegerMatrix& m, const at::Tensor& bias) {
  const IntegerRows rows = quantize_rows(x);
  const at::Tensor a = rows.codes.to(at::kFloat), zero_points = zero_points_of(m);
  const at::Tensor y = at::empty({x.size(0), m.rows}, x.options());
  for_row_tiles(m, [&](int64_t begin, int64_t count) {
    at::Tensor product;
    if (m.groups() == 1) {
      at::Tensor w = codes_of(m, m.codes.narrow(0, begin, count)).to(at::kFloat);
      if (zero_points.defined()) w -= zero_points.narrow(0, begin, count).to(at::kFloat);
      product = integer_product(a, w, zero_points.defined() ? kExactTermsWithZeroPoints : kExactTerms) *
                rows.scales.unsqueeze(1) * m.scales.narrow(0, begin, count).to(at::kFloat).t();
    } else {
      product = at::mm(a, tile_of(m, zero_points, begin, count, at::kFloat).t()) * rows.scales.unsqueeze(1);
    }
    if (bias.defined()) product += rows_of(bias, begin, count).to(at::kFloat);
    y.narrow(1, begin, count).copy_(product);
  });
  return y;
}

std::vector<int64_t> shape_with_last(at::IntArrayRef shape, int64_t last) {
  std::vector<int64_t> result = shape.vec();
  result.back() = last;
  return result;
}

/// Inputs: x [M, K], bias or none.
struct IntegerLinear : torch::autograd::Function<IntegerLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& bias,
                            const IntegerMatrix& m) {
    ctx->save_for_backward({m.codes, m.scales, m.zero_points});
    ctx->saved_data["matrix"] =
        std::vector<int64_t>{m.rows, m.columns, m.format.bits, m.format.group_size, m.format.packed};
    ctx->saved_data["bias"] = bias.has_value();
    return weight_only(x, m, bias.value_or(at::Tensor()));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> shape = ctx->saved_data["matrix"].toIntVector();
    const IntegerMatrix m{.format = {.bits = static_cast<int>(shape[2]),
                                     .group_size = shape[3],
                                     .symmetric = !saved[2].defined(),
                                     .packed = shape[4] != 0},
                          .rows = shape[0],
                          .columns = shape[1],
                          .codes = saved[0],
                          .scales = saved[1],
                          .zero_points = saved[2]};
    variable_list result(3);
    if (ctx->needs_input_grad(0)) result[0] = weight_only_backward(gradients[0], m);
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1)) result[1] = gradients[0].sum(0);
    return result;
  }
};

/// Whether kernels can read it as it lies.
bool has_plain_layout(const IntegerMatrix& m) {
  const auto type = m.scales.scalar_type();
  return m.codes.device() == m.scales.device() && m.codes.is_contiguous() && m.scales.is_contiguous() &&
         (type == at::kFloat || type == at::kBFloat16) && m.zero_points.defined() == m.plain_zero_points.defined() &&
         (m.format.bits == 8 || m.format.packed);
}

IntegerWeights weights_of(const IntegerMatrix& m) {
  return {.bits = m.format.bits,
          .offset = m.format.packed,
          .N = m.rows,
          .K = m.columns,
          .group = m.group_size(),
          .codes = data(m.codes),
          .row_bytes = m.codes.stride(0) * static_cast<int64_t>(m.codes.element_size()),
          .scales = data(m.scales),
          .scale_type = type_of(m.scales),
          .zero_points = static_cast<const int8_t*>(data(m.plain_zero_points))};
}

/// linear() of as few rows as decoding needs, without a gradient; undefined where that kernel cannot do it.
at::Tensor few_rows_linear(const at::Tensor& x_any, const IntegerMatrix& m, const at::Tensor& bias) {
  IntegerFewRows f{weights_of(m)};
  f.dynamic = m.format.dynamic_activations;
  f.M = x_any.numel() / m.columns;
  if (!all_fused(x_any, bias) || x_any.device() != m.codes.device() || wants_gradient(x_any, bias) ||
      !has_plain_layout(m) || !f.fits())
    return {};
  const at::Tensor x = x_any.contiguous(), shift = bias.defined() ? bias.contiguous() : bias;
  const at::Tensor y = at::empty(shape_with_last(x.sizes(), m.rows), x.options());
  const at::Tensor prepared = at::empty({f.M, f.prepared_floats()}, x.options().dtype(at::kFloat));
  f.type = type_of(x);
  f.x = data(x);
  f.bias = data(shift);
  f.y = mutable_data(y);
  f.prepared = static_cast<float*>(mutable_data(prepared));
#ifdef LLMTK_WITH_CUDA
  if (x.is_cuda()) {
    const OnDevice device(x);
    cuda::integer_few_rows(f, device.stream());
    return y;
  }
#endif
  parallel_step(f.M, f.K, [f](int64_t begin, int64_t end) { cpu::integer_prepare(f, begin, end); }, {x, prepared});
  parallel_step(f.blocks(), f.K * IntegerFewRows::kColumns,
                [f](int64_t begin, int64_t end) { cpu::integer_few_rows(f, begin, end); },
                {m.codes, m.scales, m.plain_zero_points, shift, y});
  return y;
}

at::Tensor recorded_lookup(const IntegerMatrix& m, const at::Tensor& ids, c10::ScalarType dtype) {
  std::vector<int64_t> shape = ids.sizes().vec();
  shape.push_back(m.columns);
  const at::Tensor y = at::empty(shape, m.scales.options().dtype(dtype));
  const IntegerLookup l{
      .weights = weights_of(m), .type = type_of(y), .ids = ids.const_data_ptr<int64_t>(), .y = mutable_data(y)};
  parallel_step(ids.numel(), m.columns, [l](int64_t begin, int64_t end) { cpu::integer_lookup(l, begin, end); },
                {m.codes, m.scales, m.plain_zero_points, ids, y});
  return y;
}

void refuse_gradient_of_rounding() {
  throw Error(Exit::usage,
              {.what = "matrices whose inputs are rounded to 8 bits (W8A8, W4A8) have no gradient",
               .hint = "train on the model as it was, or on one quantized with weights alone (W8A16, W4A16, NF4)"});
}

void check_linear(const at::Tensor& x, const IntegerMatrix& m) {
  LLMTK_CHECK(x.dim() > 0 && x.size(-1) == m.columns, "x is ", x.sizes(), ", the weight has ", m.columns, " columns");
  LLMTK_CHECK(x.is_floating_point(), "x is ", x.scalar_type());
}

}  // namespace

int64_t IntegerMatrix::bytes() const {
  int64_t total = 0;
  for (const at::Tensor& t : {codes, scales, zero_points})
    if (t.defined()) total += static_cast<int64_t>(t.nbytes());
  return total;
}

IntegerMatrix IntegerMatrix::to(c10::Device device) const {
  IntegerMatrix result = *this;
  for (at::Tensor* t : {&result.codes, &result.scales, &result.zero_points, &result.plain_zero_points})
    if (t->defined()) *t = t->to(device);
  return result;
}

IntegerMatrix IntegerMatrix::ready() const {
  IntegerMatrix result = *this;
  if (zero_points.defined()) result.plain_zero_points = zero_points_of(*this).contiguous();
  return result;
}

IntegerScales integer_scales(const at::Tensor& smallest, const at::Tensor& largest, const IntegerFormat& format) {
  const double lowest = lowest_code(format.bits), highest = highest_code(format.bits);
  const at::Tensor least = smallest.clamp_max(0), most = largest.clamp_min(0);
  IntegerScales result;
  result.scales = format.symmetric ? at::maximum(least.abs(), most.abs()) / ((highest - lowest) / 2)
                                   : (most - least) / (highest - lowest);
  const double epsilon = result.scales.scalar_type() == at::kBFloat16 ? 0x1p-7
                         : result.scales.scalar_type() == at::kHalf   ? 0x1p-10
                                                                      : 0x1p-23;
  if (!format.symmetric) {
    const at::Tensor places = (lowest - least / result.scales).clamp(lowest, highest);  // 0 / 0 where all are 0
    result.zero_points = at::where(result.scales == 0, at::zeros({}, places.options()), places).round().to(at::kChar);
  }
  result.scales = at::where(result.scales == 0, at::full({}, epsilon, result.scales.options()), result.scales);
  return result;
}

at::Tensor integer_codes(const at::Tensor& x, const IntegerScales& scales, int bits) {
  at::Tensor places = x.to(at::kFloat) / scales.scales.to(at::kFloat);
  if (scales.zero_points.defined()) places += scales.zero_points.to(at::kFloat);
  return places.clamp_(lowest_code(bits), highest_code(bits)).round_().to(at::kChar);
}

IntegerMatrix integer_matrix(const at::Tensor& codes, const IntegerScales& scales, const IntegerFormat& format) {
  IntegerMatrix m{.format = format,
                  .rows = codes.size(0),
                  .columns = codes.size(1),
                  .codes = format.packed ? pack_codes(codes, format.bits) : codes.contiguous(),
                  .scales = scales.scales.contiguous()};
  if (format.symmetric) return m;
  m.zero_points = format.packed ? pack_codes(scales.zero_points.t(), format.bits).t().contiguous()
                                : scales.zero_points.contiguous();
  return m;
}

IntegerMatrix quantize(const at::Tensor& weight, const IntegerFormat& format, c10::ScalarType scale_dtype) {
  const at::NoGradGuard no_grad;
  LLMTK_CHECK(weight.dim() == 2 && weight.numel() > 0, "weight is ", weight.sizes());
  const int64_t N = weight.size(0), K = weight.size(1), group = format.group_size ? format.group_size : K;
  LLMTK_CHECK(K % group == 0, K, " columns in groups of ", group);
  const at::Tensor codes = at::empty({N, K}, weight.options().dtype(at::kChar));
  std::vector<at::Tensor> scales, zero_points;
  const int64_t step = std::clamp<int64_t>((int64_t{1} << 20) / K, 1, N);
  for (int64_t row = 0; row < N; row += step) {
    const int64_t rows = std::min(step, N - row);
    const at::Tensor part = weight.narrow(0, row, rows).to(at::kFloat).contiguous().view({rows, K / group, group});
    const at::Tensor smallest = part.amin(2), largest = part.amax(2);
    if (!(smallest.isfinite().all() & largest.isfinite().all()).item<bool>())
      throw Error(Exit::file, {.what = "a weight that is to be quantized holds NaN or infinity"});
    const IntegerScales own = integer_scales(smallest.to(scale_dtype), largest.to(scale_dtype), format);
    const IntegerScales wide{own.scales.unsqueeze(2),
                             own.zero_points.defined() ? own.zero_points.unsqueeze(2) : own.zero_points};
    codes.narrow(0, row, rows).copy_(integer_codes(part, wide, format.bits).view({rows, K}));
    scales.push_back(own.scales);
    if (own.zero_points.defined()) zero_points.push_back(own.zero_points);
  }
  return integer_matrix(codes, {at::cat(scales), zero_points.empty() ? at::Tensor() : at::cat(zero_points)}, format);
}

at::Tensor dequantize(const IntegerMatrix& m, c10::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const at::Tensor out = at::empty({m.rows, m.columns}, m.codes.options().dtype(dtype)),
                   zero_points = zero_points_of(m);
  for_row_tiles(m, [&](int64_t begin, int64_t count) {
    out.narrow(0, begin, count).copy_(tile_of(m, zero_points, begin, count, dtype));
  });
  return out;
}

at::Tensor dequantize_rows(const IntegerMatrix& m, const at::Tensor& ids, c10::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (Recording::current() && has_plain_layout(m) && m.codes.is_cpu() && ids.is_cpu() && ids.is_contiguous() &&
      (dtype == at::kFloat || dtype == at::kBFloat16))
    return recorded_lookup(m, ids, dtype);
  const at::Tensor flat = ids.reshape({-1}), zero_points = zero_points_of(m);
  const at::Tensor w =
      scaled(codes_of(m, m.codes.index_select(0, flat)),
             zero_points.defined() ? zero_points.index_select(0, flat) : zero_points, m.scales.index_select(0, flat));
  std::vector<int64_t> shape = ids.sizes().vec();
  shape.push_back(m.columns);
  return w.to(dtype).view(shape);
}

IntegerRows quantize_rows(const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  const at::Tensor wide = x.to(at::kFloat);
  const IntegerScales scales = integer_scales(wide.amin(1, true), wide.amax(1, true), {});
  return {integer_codes(wide, scales, 8), scales.scales.view({-1})};
}

at::Tensor linear(const at::Tensor& x, const IntegerMatrix& m, const at::Tensor& bias) {
  check_linear(x, m);
  if (backend() == Backend::reference) return reference::linear(x, m, bias);
  if (x.numel() == 0) return at::zeros(shape_with_last(x.sizes(), m.rows), x.options()) + 0 * x.sum();
  if (const at::Tensor y = few_rows_linear(x, m, bias); y.defined()) return y;
  const at::Tensor rows = x.reshape({-1, m.columns});
  at::Tensor y;
  if (m.format.dynamic_activations) {
    if (wants_gradient(x, bias)) refuse_gradient_of_rounding();
    y = with_dynamic_activations(rows, m, bias);
  } else {
    y = wants_gradient(x, bias) ? IntegerLinear::apply(rows, optional(bias), m) : weight_only(rows, m, bias);
  }
  return y.view(shape_with_last(x.sizes(), m.rows));
}

namespace reference {

at::Tensor dequantize(const IntegerMatrix& m, c10::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  return scaled(codes_of(m, m.codes), zero_points_of(m), m.scales).to(dtype);
}

at::Tensor linear(const at::Tensor& x, const IntegerMatrix& m, const at::Tensor& bias) {
  check_linear(x, m);
  const bool rounds = m.format.dynamic_activations;
  if (rounds && wants_gradient(x, bias)) refuse_gradient_of_rounding();
  at::Tensor input = x;
  if (rounds) {
    const IntegerRows rows = quantize_rows(x.reshape({-1, m.columns}));
    input = (rows.codes.to(at::kFloat) * rows.scales.unsqueeze(1)).view(x.sizes());
  }
  const at::Tensor weight = reference::dequantize(m, input.scalar_type());
  return (bias.defined() ? at::linear(input, weight, bias.to(input.scalar_type())) : at::linear(input, weight))
      .to(x.scalar_type());
}

}  // namespace reference
}  // namespace llmtk::kernels
