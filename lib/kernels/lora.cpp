#include "kernels/lora.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <bit>

#include "kernels/dropout.h"
#include "kernels/linear.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows of a tensor [N, I] in pieces that stay in the cache while they are masked and multiplied.
template <class F>
void each_piece(int64_t rows, int64_t columns, F f) {
  constexpr int64_t kElements = int64_t{1} << 18;
  const int64_t step = std::max<int64_t>(16, kElements / std::max<int64_t>(columns, 1));
  for (int64_t i = 0; i < rows; i += step) f(i, std::min(step, rows - i));
}

/// float32 memory for one piece, used again for the next.
class Room {
 public:
  Tensor rows(int64_t count, int64_t columns, const Tensor& like) {
    if (!memory_.defined() || memory_.size(0) < count)
      memory_ = at::empty({count, columns}, like.options().dtype(at::kFloat));
    return memory_.narrow(0, 0, count);
  }

 private:
  Tensor memory_;
};

/// Rows `first` ... of dropout(x) in float32; x itself where nothing is dropped and it is float32.
Tensor masked_rows(const Tensor& x, int64_t first, int64_t count, const std::optional<Dropout>& dropout, Room& room) {
  const Tensor rows = x.narrow(0, first, count);
  if (!dropout && x.scalar_type() == at::kFloat) return rows;
  const Tensor out = room.rows(count, x.size(1), x);
  if (!dropout) return out.copy_(rows);
  Dropout piece = *dropout;
  piece.first_row = first;
  parallel_rows(count, x.size(1), [&](int64_t begin, int64_t end) {
    cpu::dropout(piece, type_of(x), data(rows), out.mutable_data_ptr<float>(), begin, end);
  });
  return out;
}

/// y += a b for float32 a and b.
void add_product(Tensor y, const Tensor& a, const Tensor& b, Room& room) {
  if (y.scalar_type() == at::kFloat) {
    y.addmm_(a, b);
    return;
  }
  Tensor product = room.rows(y.size(0), y.size(1), y);
  y.add_(at::mm_out(product, a, b));
}

/// dx += dropout(a b), as it was dropped from x.
void add_masked_product(Tensor dx, const Tensor& a, const Tensor& b, int64_t first,
                        const std::optional<Dropout>& dropout, Room& room) {
  if (!dropout) return add_product(dx, a, b, room);
  Tensor rows = room.rows(dx.size(0), dx.size(1), dx);
  at::mm_out(rows, a, b);
  Dropout piece = *dropout;
  piece.first_row = first;
  parallel_rows(rows.size(0), rows.size(1), [&](int64_t begin, int64_t end) {
    cpu::dropout_add(piece, type_of(dx), rows.const_data_ptr<float>(), mutable_data(dx), begin, end);
  });
}

/// h = scale * dropout(x) a^T, [N, r] float32; y += h b^T.
Tensor add_branch(Tensor y, const Tensor& x, const Tensor& a, const Tensor& b, double scale,
                  const std::optional<Dropout>& dropout) {
  const Tensor down = a.to(at::kFloat).t(), up = b.to(at::kFloat).t();
  const Tensor h = at::empty({x.size(0), a.size(0)}, x.options().dtype(at::kFloat));
  Room of_x, of_y;
  each_piece(x.size(0), std::max(x.size(1), y.size(1)), [&](int64_t first, int64_t count) {
    Tensor part = h.narrow(0, first, count);
    at::mm_out(part, masked_rows(x, first, count, dropout, of_x), down);
    part.mul_(scale);
    add_product(y.narrow(0, first, count), part, up, of_y);
  });
  return h;
}

struct LoraLinear : torch::autograd::Function<LoraLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& a, const Tensor& b,
                        const std::optional<Tensor>& weight, const std::optional<Tensor>& bias, double scale,
                        double p) {
    const Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = b.size(0);
    std::optional<Dropout> dropout;
    if (p > 0) dropout = make_dropout(p, draw_dropout_seed(), rows.size(1));
    const Tensor y = weight ? kernels::linear(rows, *weight, bias.value_or(Tensor()))
                            : at::zeros({rows.size(0), b.size(0)}, x.options());
    const Tensor h = add_branch(y, rows, a, b, scale, dropout);
    ctx->save_for_backward({rows, a, b, h, weight.value_or(Tensor())});
    ctx->saved_data["shape"] = x.sizes().vec();
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["p"] = p;
    if (dropout) ctx->saved_data["seed"] = std::bit_cast<int64_t>(dropout->seed);
    return y.view(shape);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& gradients) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &a = saved[1], &b = saved[2], &h = saved[3], &weight = saved[4];
    const double scale = ctx->saved_data["scale"].toDouble(), p = ctx->saved_data["p"].toDouble();
    std::optional<Dropout> dropout;
    if (p > 0) dropout = make_dropout(p, std::bit_cast<uint64_t>(ctx->saved_data["seed"].toInt()), x.size(1));
    const Tensor dy = gradients[0].reshape({-1, b.size(0)}).contiguous();

    const bool wants_x = ctx->needs_input_grad(0);
    Tensor dx;
    if (wants_x && weight.defined()) {
      dx = at::empty(x.sizes(), x.options());
      kernels::mm_out(dx, dy, weight);
    } else if (wants_x) {
      dx = at::zeros(x.sizes(), x.options());
    }
    const Tensor down = a.to(at::kFloat), up = b.to(at::kFloat);
    Tensor da = at::zeros(a.sizes(), h.options()), db = at::zeros(b.sizes(), h.options());
    Room of_x, of_dx;
    each_piece(x.size(0), std::max(x.size(1), dy.size(1)), [&](int64_t first, int64_t count) {
      const Tensor d = dy.narrow(0, first, count).to(at::kFloat);
      db.addmm_(d.t(), h.narrow(0, first, count));
      const Tensor dh = at::mm(d, up).mul_(scale);  // [n, r]
      da.addmm_(dh.t(), masked_rows(x, first, count, dropout, of_x));
      if (wants_x) add_masked_product(dx.narrow(0, first, count), dh, down, first, dropout, of_dx);
    });

    variable_list result(7);
    if (wants_x) result[0] = dx.view(ctx->saved_data["shape"].toIntVector());
    result[1] = da.to(a.scalar_type());
    result[2] = db.to(b.scalar_type());
    if (weight.defined() && ctx->needs_input_grad(3)) result[3] = at::mm(dy.t(), x);
    const size_t of_bias = weight.defined() ? 4 : 3;  // what is missing takes no place
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(of_bias)) result[4] = dy.sum(0);
    return result;
  }
};

}  // namespace

namespace reference {

Tensor lora_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& a, const Tensor& b,
                   double scale, double p) {
  const Tensor masked = p > 0 ? at::dropout(x, p, true) : x;
  const Tensor h = kernels::linear(masked, a.to(x.scalar_type())).mul(scale);
  const Tensor branch = kernels::linear(h, b.to(x.scalar_type()));
  return weight.defined() ? kernels::linear(x, weight, bias) + branch : branch;
}

}  // namespace reference

Tensor lora_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& a, const Tensor& b,
                   double scale, double dropout) {
  // Without gradients row by row, so that a row's product does not depend on the rows beside it.
  const bool learns = wants_gradient(x, weight, bias, a, b);
  const bool fused = x.is_cpu() && use_fused(x) && x.numel() > 0 && (learns || dropout > 0);
  if (!fused) return reference::lora_linear(x, weight, bias, a, b, scale, dropout);
  return LoraLinear::apply(x, a, b, optional(weight), optional(bias), scale, dropout);
}

}  // namespace llmtk::kernels
