#include "kernels/cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/activation.h"
#include "kernels/cross_entropy_impl.h"
#include "kernels/linear.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {

namespace reference {
namespace {

at::Tensor logits_of(const at::Tensor& hidden, const at::Tensor& weight, double softcap, const at::Tensor& bias = {}) {
  const at::Tensor logits = kernels::linear(hidden, weight, bias).to(at::kFloat);
  return softcap > 0 ? kernels::softcap(logits, softcap) : logits;
}

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const LinearCrossEntropyOptions& options, const at::Tensor& bias) {
  const at::Tensor logits = logits_of(hidden, weight, options.softcap, bias);
  return at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum, options.ignore_index) * options.scale;
}

at::Tensor linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                           int64_t ignore_index, double softcap) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = logits_of(hidden, weight, softcap);
  return -at::cross_entropy_loss(logits, targets, {}, at::Reduction::None, ignore_index);
}

}  // namespace reference

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Rows of logits held at a time. Few large chunks keep the weight's gradient (one product per chunk, its sum rounded
/// to the weight's dtype each time) fast and exact; 64 MiB of logits stay a small part of a step's memory.
int64_t rows_per_chunk(int64_t rows, int64_t V, int64_t element_size) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  constexpr int64_t kMostChunks = 16;
  const int64_t wanted =
      std::max(kBytes / std::max<int64_t>(1, V * element_size), (rows + kMostChunks - 1) / kMostChunks);
  const int64_t chunks = (rows + wanted - 1) / std::max<int64_t>(1, wanted);
  return std::max<int64_t>(1, (rows + chunks - 1) / std::max<int64_t>(1, chunks));  // equal chunks
}

/// Losses of a chunk of logits; with `gradient` the logits become their gradient.
void softmax_loss(at::Tensor& logits, const at::Tensor& targets, at::Tensor losses, bool gradient, double scale) {
  SoftmaxLoss s{.type = type_of(logits), .rows = logits.size(0), .V = logits.size(1)};
  s.logits = mutable_data(logits);
  s.targets = static_cast<const int64_t*>(data(targets));
  s.losses = static_cast<float*>(mutable_data(losses));
  s.gradient = gradient;
  s.scale = static_cast<float>(scale);
#ifdef LLMTK_WITH_CUDA
  if (logits.is_cuda()) {
    const OnDevice device(logits);
    cuda::softmax_loss(s, device.stream());
    return;
  }
#endif
  parallel_rows(s.rows, s.V, [&](int64_t begin, int64_t end) { cpu::softmax_loss(s, begin, end); });
}

/// Softcaps logits in place. Returns the tanh, which the gradient wants.
at::Tensor cap(at::Tensor& logits, double softcap) {
  const at::Tensor tanh = logits.div_(softcap).tanh();
  logits.copy_(tanh).mul_(softcap);
  return tanh;
}

/// Rows that count, gathered where some do not.
struct Selection {
  at::Tensor index;  ///< undefined: all rows
  at::Tensor hidden, targets;
};

Selection select(const at::Tensor& hidden, const at::Tensor& targets, int64_t V, int64_t ignore_index) {
  LLMTK_CHECK(targets.scalar_type() == at::kLong, "targets are ", targets.scalar_type());
  Selection out{{}, hidden.contiguous(), targets.contiguous()};
  const at::Tensor counts = targets != ignore_index;
  const int64_t valid = counts.sum().item<int64_t>();
  if (valid < targets.numel()) {
    out.index = counts.nonzero().squeeze(1);
    out.hidden = out.hidden.index_select(0, out.index);
    out.targets = out.targets.index_select(0, out.index);
  }
  if (valid > 0) {
    const int64_t least = out.targets.min().item<int64_t>(), most = out.targets.max().item<int64_t>();
    LLMTK_CHECK(least >= 0 && most < V, "targets range from ", least, " to ", most, ", the vocabulary has ", V);
  }
  return out;
}

/// Those that are wanted, and then the tensors themselves.
struct Gradients {
  bool of_hidden = false, of_weight = false, of_bias = false;
  at::Tensor hidden, weight, bias;
};

/// Losses of all rows [N] (0 where ignored), and the gradients that are asked for.
at::Tensor run(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& targets,
               const LinearCrossEntropyOptions& options, Gradients& wanted) {
  const int64_t V = weight.size(0);
  const Selection rows = select(hidden, targets, V, options.ignore_index);
  const int64_t N = rows.hidden.size(0);
  const bool gradient = wanted.of_hidden || wanted.of_weight || wanted.of_bias;
  at::Tensor losses = at::zeros({N}, hidden.options().dtype(at::kFloat));
  if (wanted.of_hidden) wanted.hidden = at::empty_like(rows.hidden);
  if (wanted.of_weight)
    wanted.weight = N > 0 ? at::empty_like(weight, at::MemoryFormat::Contiguous) : at::zeros_like(weight);
  if (wanted.of_bias) wanted.bias = at::zeros_like(bias, bias.options().dtype(at::kFloat));
  const int64_t step = rows_per_chunk(N, V, hidden.element_size());
  at::Tensor buffer = N > 0 ? at::empty({std::min(step, N), V}, hidden.options()) : at::Tensor();
  for (int64_t begin = 0; begin < N; begin += step) {
    const int64_t n = std::min(step, N - begin);
    at::Tensor logits = buffer.narrow(0, 0, n);  // [n, V]
    const at::Tensor chunk = rows.hidden.narrow(0, begin, n);
    kernels::mm_out(logits, chunk, weight.t());
    if (bias.defined()) logits.add_(bias);
    const at::Tensor tanh = options.softcap > 0 ? cap(logits, options.softcap) : at::Tensor();
    softmax_loss(logits, rows.targets.narrow(0, begin, n), losses.narrow(0, begin, n), gradient, options.scale);
    if (gradient && tanh.defined()) at::tanh_backward_out(logits, logits, tanh);
    if (wanted.of_hidden) {
      at::Tensor part = wanted.hidden.narrow(0, begin, n);
      kernels::mm_out(part, logits, weight);
    }
    if (wanted.of_weight) kernels::mm_out(wanted.weight, logits.t(), chunk, /*accumulate=*/begin > 0);
    if (wanted.of_bias) wanted.bias.add_(logits.sum(0, /*keepdim=*/false, at::kFloat));
  }
  if (wanted.of_bias) wanted.bias = wanted.bias.to(bias.scalar_type());
  if (!rows.index.defined()) return losses;
  if (wanted.of_hidden) wanted.hidden = at::zeros_like(hidden).index_copy_(0, rows.index, wanted.hidden);
  return at::zeros({targets.numel()}, losses.options()).index_copy_(0, rows.index, losses);
}

at::Tensor scaled_sum(const at::Tensor& losses, double scale) {
  return (losses.sum(at::kDouble) * scale).to(at::kFloat);
}

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, const at::Tensor& targets,
                            const LinearCrossEntropyOptions& options, Gradients gradients) {
    const at::Tensor losses = run(hidden, weight, bias.value_or(at::Tensor()), targets, options, gradients);
    // Kept as plain values: they are handed on once and then belong to the receiver.
    ctx->saved_data["hidden"] = gradients.hidden;
    ctx->saved_data["weight"] = gradients.weight;
    ctx->saved_data["bias"] = gradients.bias;
    return scaled_sum(losses, options.scale);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    const at::Tensor& factor = incoming[0];
    variable_list result(6);
    const char* const names[] = {"hidden", "weight", "bias"};
    for (int i = 0; i < 3; ++i) {
      LLMTK_CHECK(ctx->saved_data.count(names[i]), "the gradients were handed on already: backward runs once");
      at::Tensor gradient = ctx->saved_data[names[i]].toTensor();
      ctx->saved_data.erase(names[i]);
      if (!gradient.defined()) continue;
      // On a GPU reading the factor would wait for everything before it: the product is cheaper.
      if (factor.is_cuda() || factor.item<float>() != 1.0f) gradient.mul_(factor);
      result[static_cast<size_t>(i)] = std::move(gradient);
    }
    return result;
  }
};

void check_loss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                const at::Tensor& bias = {}) {
  LLMTK_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight.size(0)), "bias is ", bias.sizes(),
              ", weight is ", weight.sizes());
  LLMTK_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) && targets.dim() == 1 &&
                  targets.size(0) == hidden.size(0),
              "hidden is ", hidden.sizes(), ", weight is ", weight.sizes(), ", targets are ", targets.sizes());
}

}  // namespace

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                                const LinearCrossEntropyOptions& options, const at::Tensor& bias) {
  check_loss(hidden, weight, targets, bias);
  if (!all_fused(hidden, weight)) return reference::linear_cross_entropy(hidden, weight, targets, options, bias);
  Gradients wanted;
  if (at::GradMode::is_enabled())
    wanted = {.of_hidden = hidden.requires_grad(),
              .of_weight = weight.requires_grad(),
              .of_bias = bias.defined() && bias.requires_grad()};
  if (!wanted.of_hidden && !wanted.of_weight && !wanted.of_bias)
    return scaled_sum(run(hidden, weight, bias, targets, options, wanted), options.scale);
  return CrossEntropyFunction::apply(hidden, weight, optional(bias), targets, options, wanted);
}

at::Tensor linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                           int64_t ignore_index, double softcap) {
  check_loss(hidden, weight, targets);
  if (!all_fused(hidden, weight)) return reference::linear_log_prob(hidden, weight, targets, ignore_index, softcap);
  const at::NoGradGuard no_grad;
  Gradients none;
  return run(hidden, weight, {}, targets, {.ignore_index = ignore_index, .softcap = softcap}, none).neg_();
}

}  // namespace llmtk::kernels
