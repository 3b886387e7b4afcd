#include "kernels/quantized.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The "dynamic" 8-bit map (Dettmers 2016): seven decades below 1, each with twice the steps of the one below it.
at::Tensor make_dynamic_map() {
  std::vector<at::Tensor> parts = {at::zeros({1}), at::ones({1})};
  for (int decade = 0; decade < 7; ++decade) {
    const at::Tensor ends = at::linspace(0.1, 1.0, (int64_t{1} << decade) + 1, at::kFloat);
    const at::Tensor middles = (ends.slice(0, 0, -1) + ends.slice(0, 1)) / 2;
    const double unit = std::pow(10.0, decade - 6);
    parts.push_back(middles * unit);
    parts.push_back(middles * -unit);
  }
  return std::get<0>(at::cat(parts).sort());
}

const at::Tensor& dynamic_map() {
  static const at::Tensor map = [] {
    const at::NoGradGuard no_grad;
    return make_dynamic_map();
  }();
  return map;
}

/// The index of the value in `map` (sorted) that is nearest to each of x, which lie in [-1, 1]; the lower of two. x is
/// first rounded to one of 65536 places: bitsandbytes looks its codes up in a table.
at::Tensor nearest(const at::Tensor& map, const at::Tensor& x) {
  const at::Tensor place = at::trunc((x + 1) * 0.5 * 65535 + 0.5) / 65535 * 2 - 1;
  const at::Tensor right = at::searchsorted(map, place).clamp(1, map.numel() - 1), left = right - 1;
  const at::Tensor is_right = (map.index({right}) - place).abs() < (place - map.index({left})).abs();
  return at::where(is_right, right, left).to(at::kByte);
}

/// Scales of blocks become codes with a scale per kQuantScaleBlock of them.
void quantize_scales(QuantizedMatrix& q) {
  const at::Tensor mean = q.scales.mean(), centred = q.scales - mean;
  const int64_t n = centred.numel(), blocks = (n + kQuantScaleBlock - 1) / kQuantScaleBlock;
  const at::Tensor rows = at::constant_pad_nd(centred, {0, blocks * kQuantScaleBlock - n}).view({blocks, -1});
  const at::Tensor largest = rows.abs().amax(1, true);
  const at::Tensor unit = (rows * largest.reciprocal()).clamp(-1, 1);
  const at::Tensor codes = at::where(largest == 0, at::zeros({}, at::kByte), nearest(dynamic_map(), unit));
  q.scale_codes = codes.view({-1}).slice(0, 0, n).clone();
  q.scale_scales = largest.view({-1}).clone();
  q.scale_map = dynamic_map();
  q.scale_offset = mean.item<float>();
  q.scales.reset();
}

/// int8 in `codes`, [rows, columns], and the largest absolute values of the rows.
at::Tensor quantize_rows(const at::Tensor& weight, at::Tensor codes) {
  const at::Tensor x = weight.to(at::kHalf).to(at::kFloat);
  const at::Tensor largest = x.abs().amax(1, true);
  codes.copy_(at::where(largest == 0, at::zeros({}), at::round(x * (largest.reciprocal() * 127.0))));
  return largest.view({-1});
}

Packed view_of(const QuantizedMatrix& q) {
  return {.type = q.type,
          .N = q.rows,
          .K = q.columns,
          .codes = data(q.codes),
          .scales = static_cast<const float*>(data(q.scales)),
          .scale_codes = static_cast<const uint8_t*>(data(q.scale_codes)),
          .scale_map = static_cast<const float*>(data(q.scale_map)),
          .scale_scales = static_cast<const float*>(data(q.scale_scales)),
          .scale_offset = q.scale_offset};
}

/// A part of the matrix as `rounded` has it, in `out`: [rows, columns], float32 or bfloat16.
void unpack(const QuantizedMatrix& q, const Rectangle& r, c10::ScalarType rounded, const at::Tensor& out) {
  const Packed packed = view_of(q);
#ifdef LLMTK_WITH_CUDA
  if (out.is_cuda()) {
    const OnDevice device(out);
    return cuda::unpack(packed, r, type_of(out), mutable_data(out), device.stream());
  }
#endif
  const Type type = rounded == at::kFloat ? Type::float32 : Type::bfloat16;
  void* to = mutable_data(out);
  parallel_rows(r.rows, r.columns,
                [&](int64_t begin, int64_t end) { cpu::unpack(packed, r, type, type_of(out), to, begin, end); });
}

/// Elements unpacked at a time: small enough for a CPU's caches, large enough for a GPU.
int64_t tile_elements(const at::Tensor& x) { return x.is_cuda() ? int64_t{32} << 20 : int64_t{1} << 20; }

/// What x is multiplied in: its own dtype, or float32 where that is faster for bfloat16.
c10::ScalarType product_dtype(const at::Tensor& x) {
  return x.is_cpu() && !fast_bfloat16_products() ? at::kFloat : x.scalar_type();
}

/// out = a b + bias. a and b may be wider than out, which is then rounded once.
void multiply_into(at::Tensor out, const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (a.scalar_type() != out.scalar_type()) {
    out.copy_(bias.defined() ? at::addmm(bias.to(a.scalar_type()), a, b) : at::mm(a, b));
  } else if (bias.defined()) {
    at::addmm_out(out, bias, a, b);
  } else {
    at::mm_out(out, a, b);
  }
}

/// f(tile, begin, size) over `count` rows or columns of `length` elements. tile: [size * length].
template <class F>
void for_tiles(const at::Tensor& x, int64_t count, int64_t length, const F& f) {
  const int64_t step = std::clamp<int64_t>(tile_elements(x) / length / kQuantBlock * kQuantBlock, kQuantBlock, count);
  const at::Tensor tile = at::empty({step * length}, x.options());
  for (int64_t begin = 0; begin < count; begin += step) {
    const int64_t size = std::min(step, count - begin);
    f(tile.narrow(0, 0, size * length), begin, size);
  }
}

/// x W^T + bias: [M, in] -> [M, out].
at::Tensor forward_tiles(const at::Tensor& x, const QuantizedMatrix& q, const at::Tensor& bias) {
  const at::Tensor a = x.to(product_dtype(x)), y = at::empty({x.size(0), q.rows}, x.options());
  for_tiles(a, q.rows, q.columns, [&](const at::Tensor& tile, int64_t begin, int64_t size) {
    unpack(q, {.row = begin, .rows = size, .column = 0, .columns = q.columns}, x.scalar_type(), tile);
    const at::Tensor shift = bias.defined() ? bias.narrow(0, begin, size) : bias;
    multiply_into(y.narrow(1, begin, size), a, tile.view({size, q.columns}).t(), shift);
  });
  return y;
}

/// dy W: [M, out] -> [M, in]. Tiles are columns, so that each number is summed once.
at::Tensor backward_tiles(const at::Tensor& dy, const QuantizedMatrix& q) {
  const at::Tensor a = dy.to(product_dtype(dy)), dx = at::empty({dy.size(0), q.columns}, dy.options());
  for_tiles(a, q.columns, q.rows, [&](const at::Tensor& tile, int64_t begin, int64_t size) {
    unpack(q, {.row = 0, .rows = q.rows, .column = begin, .columns = size}, dy.scalar_type(), tile);
    multiply_into(dx.narrow(1, begin, size), a, tile.view({q.rows, size}), {});
  });
  return dx;
}

std::vector<int64_t> with_last(at::IntArrayRef shape, int64_t last) {
  std::vector<int64_t> result = shape.vec();
  result.back() = last;
  return result;
}

at::Tensor packed_forward(const at::Tensor& x, const QuantizedMatrix& q, const at::Tensor& bias) {
  return forward_tiles(x.reshape({-1, q.columns}), q, bias).view(with_last(x.sizes(), q.rows));
}

/// Inputs: x, bias or none.
struct PackedLinear : torch::autograd::Function<PackedLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const std::optional<at::Tensor>& bias,
                            const QuantizedMatrix& q) {
    ctx->save_for_backward({q.codes, q.scales, q.scale_codes, q.scale_scales, q.scale_map});
    ctx->saved_data["matrix"] = std::vector<int64_t>{static_cast<int64_t>(q.type), q.rows, q.columns};
    ctx->saved_data["scale_offset"] = static_cast<double>(q.scale_offset);
    ctx->saved_data["bias"] = bias.has_value();
    return packed_forward(x, q, bias.value_or(at::Tensor()));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> matrix = ctx->saved_data["matrix"].toIntVector();
    const QuantizedMatrix q{.type = static_cast<QuantType>(matrix[0]),
                            .rows = matrix[1],
                            .columns = matrix[2],
                            .codes = saved[0],
                            .scales = saved[1],
                            .scale_codes = saved[2],
                            .scale_scales = saved[3],
                            .scale_map = saved[4],
                            .scale_offset = static_cast<float>(ctx->saved_data["scale_offset"].toDouble())};
    const at::Tensor& given = gradients[0];
    const at::Tensor dy = given.reshape({-1, q.rows});
    variable_list result(3);
    if (ctx->needs_input_grad(0)) result[0] = backward_tiles(dy, q).view(with_last(given.sizes(), q.columns));
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1)) result[1] = dy.sum(0);
    return result;
  }
};

/// Whether the packed weight is multiplied as it is.
bool has_packed_few_rows(const at::Tensor& x, const QuantizedMatrix& q, const at::Tensor& bias) {
  return x.is_cpu() && x.numel() <= PackedFewRows::kMost * q.columns && !wants_gradient(x, bias) &&
         (q.type == QuantType::int8 || q.columns % kQuantBlock == 0);
}

at::Tensor packed_few_rows_linear(const at::Tensor& x, const QuantizedMatrix& q, const at::Tensor& bias) {
  const at::Tensor y = at::empty(with_last(x.sizes(), q.rows), x.options());
  const at::Tensor wide = widen(x.contiguous()), shift = bias.defined() ? bias.contiguous() : bias;
  const PackedFewRows f{.matrix = view_of(q),
                        .type = type_of(x),
                        .M = x.numel() / q.columns,
                        .x = wide.const_data_ptr<float>(),
                        .bias = data(shift),
                        .y = mutable_data(y)};
  parallel_step((q.rows + PackedFewRows::kColumns - 1) / PackedFewRows::kColumns, q.columns * PackedFewRows::kColumns,
                [f](int64_t begin, int64_t end) { cpu::packed_few_rows(f, begin, end); },
                {wide, shift, y, q.codes, q.scales, q.scale_codes, q.scale_scales, q.scale_map});
  return y;
}

/// x and bias in the dtype that is computed in.
at::Tensor compute(const at::Tensor& x, const QuantizedMatrix& q, const at::Tensor& bias) {
  if (!all_fused(x, bias)) {
    const at::Tensor weight = reference::dequantize(q, x.scalar_type());
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
  }
  if (x.numel() == 0) return at::zeros(with_last(x.sizes(), q.rows), x.options()) + 0 * x.sum();
  if (has_packed_few_rows(x, q, bias)) return packed_few_rows_linear(x, q, bias);
  return wants_gradient(x, bias) ? PackedLinear::apply(x, optional(bias), q) : packed_forward(x, q, bias);
}

void refuse_not_finite(const at::Tensor& x) {
  if (!x.isfinite().all().item<bool>())
    throw Error(Exit::file, {.what = "a weight that is to be quantized holds NaN or infinity"});
}

}  // namespace

int64_t QuantizedMatrix::bytes() const {
  int64_t total = 0;
  for (const at::Tensor& t : {codes, scales, scale_codes, scale_scales})
    if (t.defined()) total += static_cast<int64_t>(t.nbytes());
  return total;
}

QuantizedMatrix QuantizedMatrix::to(c10::Device device) const {
  QuantizedMatrix result = *this;
  for (at::Tensor* t : {&result.codes, &result.scales, &result.scale_codes, &result.scale_scales, &result.scale_map})
    if (t->defined()) *t = t->to(device);
  return result;
}

QuantizedMatrix quantize(const at::Tensor& weight, QuantType type, bool double_quantization) {
  const at::NoGradGuard no_grad;
  LLMTK_CHECK(weight.dim() == 2 && weight.numel() > 0, "weight is ", weight.sizes());
  LLMTK_CHECK(type != QuantType::int8 || !double_quantization, "rows' scales are not quantized");
  QuantizedMatrix q{.type = type, .rows = weight.size(0), .columns = weight.size(1)};
  const int64_t n = weight.numel(), blocks = (n + kQuantBlock - 1) / kQuantBlock;
  const bool is_int8 = type == QuantType::int8;
  q.codes = is_int8 ? at::empty({q.rows, q.columns}, at::kChar) : at::empty({(n + 1) / 2}, at::kByte);
  q.scales = at::empty({is_int8 ? q.rows : blocks}, at::kFloat);
  // Some rows at a time: a multiple of a block's elements, so that blocks start where they do in the whole.
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 20) / q.columns / kQuantBlock) * kQuantBlock;
  for (int64_t row = 0; row < q.rows; row += step) {
    const int64_t rows = std::min(step, q.rows - row);
    const at::Tensor part = weight.narrow(0, row, rows).to(at::kCPU).to(at::kFloat).contiguous();
    refuse_not_finite(is_int8 ? part.to(at::kHalf) : part);
    if (is_int8) {
      q.scales.narrow(0, row, rows).copy_(quantize_rows(part, q.codes.narrow(0, row, rows)));
      continue;
    }
    const int64_t first = row * q.columns, count = part.numel();
    uint8_t* codes = q.codes.mutable_data_ptr<uint8_t>() + first / 2;
    float* scales = q.scales.mutable_data_ptr<float>() + first / kQuantBlock;
    parallel_rows((count + kQuantBlock - 1) / kQuantBlock, kQuantBlock * 4, [&](int64_t begin, int64_t end) {
      cpu::pack4(type, part.const_data_ptr<float>(), count, codes, scales, begin, end);
    });
  }
  if (is_int8) q.scales *= 1.0 / 127.0;
  if (double_quantization) quantize_scales(q);
  return q;
}

at::Tensor dequantize(const QuantizedMatrix& matrix, c10::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  const at::Tensor out = at::empty({matrix.rows, matrix.columns}, matrix.codes.options().dtype(dtype));
  if (!use_fused(out)) return reference::dequantize(matrix, dtype);
  unpack(matrix, {.row = 0, .rows = matrix.rows, .column = 0, .columns = matrix.columns}, dtype, out);
  return out;
}

at::Tensor linear(const at::Tensor& x, const QuantizedMatrix& matrix, const at::Tensor& bias,
                  c10::ScalarType compute_dtype) {
  LLMTK_CHECK(x.dim() > 0 && x.size(-1) == matrix.columns, "x is ", x.sizes(), ", the weight has ", matrix.columns,
              " columns");
  LLMTK_CHECK(compute_dtype == at::kFloat || compute_dtype == at::kBFloat16, "computed in ", compute_dtype);
  const at::Tensor shift = bias.defined() ? bias.to(compute_dtype) : bias;
  return compute(x.to(compute_dtype), matrix, shift).to(x.scalar_type());
}

namespace reference {

at::Tensor dequantize(const QuantizedMatrix& q, c10::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  if (q.type == QuantType::int8) return (q.codes.to(at::kFloat) * q.scales.unsqueeze(1)).to(dtype);
  at::Tensor scales = q.scales;
  if (!scales.defined()) {
    const at::Tensor wide = q.scale_scales.repeat_interleave(kQuantScaleBlock).slice(0, 0, q.scale_codes.numel());
    scales = q.scale_map.index({q.scale_codes.to(at::kLong)}) * wide + q.scale_offset;
  }
  const int64_t n = q.rows * q.columns;
  const at::Tensor codes =
      at::stack({q.codes.bitwise_right_shift(4), q.codes.bitwise_and(15)}, 1).view({-1}).slice(0, 0, n);
  const at::Tensor table = at::tensor(c10::ArrayRef<float>(values_of(q.type).data(), 16)).to(q.codes.device());
  const at::Tensor values = table.index({codes.to(at::kLong)}) * scales.repeat_interleave(kQuantBlock).slice(0, 0, n);
  return values.view({q.rows, q.columns}).to(dtype);
}

}  // namespace reference
}  // namespace llmtk::kernels
