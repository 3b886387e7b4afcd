#include "kernels/dropout.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <bit>
#include <mutex>

#include "kernels/tensors.h"

namespace llmtk::kernels {
namespace {

/// dropout(x) in x's type, x being contiguous.
at::Tensor masked(const at::Tensor& x, double p, uint64_t seed) {
  const at::Tensor y = at::empty_like(x);
  const int64_t columns = x.size(-1);
  const Dropout d = make_dropout(p, seed, columns);
  parallel_rows(x.numel() / columns, columns, [&](int64_t begin, int64_t end) {
    cpu::dropout_same(d, type_of(x), data(x), mutable_data(y), begin, end);
  });
  return y;
}

struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, double p) {
    const uint64_t seed = draw_dropout_seed();
    ctx->saved_data["p"] = p;
    ctx->saved_data["seed"] = std::bit_cast<int64_t>(seed);
    return masked(x.contiguous(), p, seed);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& gradients) {
    const auto seed = std::bit_cast<uint64_t>(ctx->saved_data["seed"].toInt());
    return {masked(gradients[0].contiguous(), ctx->saved_data["p"].toDouble(), seed), {}};
  }
};

}  // namespace

Dropout make_dropout(double p, uint64_t seed, int64_t columns) {
  return {.seed = seed,
          .threshold = static_cast<uint32_t>(std::clamp(p * 4294967296.0, 1.0, 4294967295.0)),
          .scale = static_cast<float>(1 / (1 - p)),
          .first_row = 0,
          .columns = columns};
}

uint64_t draw_dropout_seed() {
  at::Generator generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard lock(generator.mutex());
  return at::check_generator<at::CPUGeneratorImpl>(generator)->random64();
}

at::Tensor dropout(const at::Tensor& x, double p) {
  if (p == 0) return x;
  if (!x.is_cpu() || !use_fused(x) || x.dim() == 0 || x.numel() == 0) return at::dropout(x, p, true);
  return DropoutFunction::apply(x, p);
}

at::Tensor reference::dropout(const at::Tensor& x, double p, uint64_t seed) {
  const int64_t columns = x.size(-1);
  return (x * dropout_factors(x.numel() / columns, columns, p, seed).view(x.sizes())).to(x.scalar_type());
}

at::Tensor dropout_factors(int64_t rows, int64_t columns, double p, uint64_t seed) {
  return masked(at::ones({rows, columns}), p, seed);
}

}  // namespace llmtk::kernels
