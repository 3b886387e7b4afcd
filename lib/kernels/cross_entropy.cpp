#include "kernels/cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/error.h"
#include "kernels/elementwise.h"
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

LogProbs linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                         const LogProbOptions& options, const at::Tensor& bias) {
  // In double precision: a sum over a large vocabulary costs a float digits that the entropy shows.
  const at::Tensor logits =
      logits_of(hidden, weight, options.softcap, bias).to(at::kDouble) / options.temperature;  // [N, V]
  const at::Tensor log_p = at::log_softmax(logits, -1), counts = targets != options.ignore_index;
  const at::Tensor index = at::where(counts, targets, 0).unsqueeze(1);
  LogProbs out{.log_probs = (log_p.gather(1, index).squeeze(1) * counts).to(at::kFloat)};
  if (options.entropy) out.entropies = (-(log_p.exp() * log_p).sum(-1) * counts).to(at::kFloat);
  return out;
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

  bool any() const { return of_hidden || of_weight || of_bias; }
  void begin(const Selection& rows, const at::Tensor& head, const at::Tensor& head_bias) {
    if (of_hidden) hidden = at::empty_like(rows.hidden);
    if (of_weight)
      weight = rows.hidden.size(0) > 0 ? at::empty_like(head, at::MemoryFormat::Contiguous) : at::zeros_like(head);
    if (of_bias) bias = at::zeros_like(head_bias, head_bias.options().dtype(at::kFloat));
  }
  /// of_logits: [n, V], of the rows from `first` on, which are `chunk` [n, H].
  void add(int64_t first, const at::Tensor& of_logits, const at::Tensor& chunk, const at::Tensor& head) {
    if (of_hidden) {
      at::Tensor part = hidden.narrow(0, first, chunk.size(0));
      kernels::mm_out(part, of_logits, head);
    }
    if (of_weight) kernels::mm_out(weight, of_logits.t(), chunk, /*accumulate=*/first > 0);
    if (of_bias) bias.add_(of_logits.sum(0, /*keepdim=*/false, at::kFloat));
  }
  void finish(const Selection& rows, const at::Tensor& all_hidden, const at::Tensor& head_bias) {
    if (of_bias) bias = bias.to(head_bias.scalar_type());
    if (of_hidden && rows.index.defined()) hidden = at::zeros_like(all_hidden).index_copy_(0, rows.index, hidden);
  }
};

/// each(first, chunk [n, H], logits [n, V], tanh) for the rows in turn; the logits are the callee's. tanh: the
/// softcap's, undefined without one.
template <class Each>
void each_chunk(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias, double softcap,
                Each&& each) {
  const int64_t N = hidden.size(0), V = weight.size(0);
  const int64_t step = rows_per_chunk(N, V, hidden.element_size());
  at::Tensor buffer = N > 0 ? at::empty({std::min(step, N), V}, hidden.options()) : at::Tensor();
  for (int64_t first = 0; first < N; first += step) {
    const int64_t n = std::min(step, N - first);
    at::Tensor logits = buffer.narrow(0, 0, n);
    const at::Tensor chunk = hidden.narrow(0, first, n);
    kernels::mm_out(logits, chunk, weight.t());
    if (bias.defined()) logits.add_(bias);
    const at::Tensor tanh = softcap > 0 ? cap(logits, softcap) : at::Tensor();
    each(first, chunk, logits, tanh);
  }
}

/// values [n] of the rows that count, among all N: 0 elsewhere.
at::Tensor among_all(const at::Tensor& values, const Selection& rows, int64_t N) {
  return rows.index.defined() ? at::zeros({N}, values.options()).index_copy_(0, rows.index, values) : values;
}

/// Losses of all rows [N] (0 where ignored), and the gradients that are asked for.
at::Tensor run(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& targets,
               const LinearCrossEntropyOptions& options, Gradients& wanted) {
  const Selection rows = select(hidden, targets, weight.size(0), options.ignore_index);
  at::Tensor losses = at::zeros({rows.hidden.size(0)}, hidden.options().dtype(at::kFloat));
  wanted.begin(rows, weight, bias);
  each_chunk(rows.hidden, weight, bias, options.softcap,
             [&](int64_t first, const at::Tensor& chunk, at::Tensor& logits, const at::Tensor& tanh) {
               const int64_t n = chunk.size(0);
               softmax_loss(logits, rows.targets.narrow(0, first, n), losses.narrow(0, first, n), wanted.any(),
                            options.scale);
               if (wanted.any() && tanh.defined()) at::tanh_backward_out(logits, logits, tanh);
               wanted.add(first, logits, chunk, weight);
             });
  wanted.finish(rows, hidden, bias);
  return among_all(losses, rows, targets.numel());
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

/// The kernels' view of a chunk. log_sums and entropies: [n], filled forward and read backward.
TokenLogProb token_log_prob(at::Tensor& logits, const at::Tensor& targets, const LogProbOptions& options,
                            const at::Tensor& log_sums, const at::Tensor& entropies) {
  TokenLogProb s{.type = type_of(logits), .rows = logits.size(0), .V = logits.size(1)};
  s.logits = mutable_data(logits);
  s.targets = static_cast<const int64_t*>(data(targets));
  s.inverse_temperature = static_cast<float>(1 / options.temperature);
  s.log_sums = static_cast<float*>(mutable_data(log_sums));
  s.entropies = static_cast<float*>(mutable_data(entropies));
  return s;
}

void run_token_log_prob(const at::Tensor& logits, const TokenLogProb& s, bool gradient) {
#ifdef LLMTK_WITH_CUDA
  if (logits.is_cuda()) {
    const OnDevice device(logits);
    return gradient ? cuda::token_log_prob_gradient(s, device.stream()) : cuda::token_log_prob(s, device.stream());
  }
#endif
  parallel_rows(s.rows, s.V, [&](int64_t begin, int64_t end) {
    gradient ? cpu::token_log_prob_gradient(s, begin, end) : cpu::token_log_prob(s, begin, end);
  });
}

at::Tensor part_of(const at::Tensor& values, int64_t first, int64_t n) {
  return values.defined() ? values.narrow(0, first, n) : values;
}

/// The sums' logarithms, of the rows that count, and what linear_log_prob gives.
std::pair<at::Tensor, LogProbs> log_probs(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                                          const at::Tensor& targets, const LogProbOptions& options) {
  const at::NoGradGuard no_grad;
  const Selection rows = select(hidden, targets, weight.size(0), options.ignore_index);
  const at::Tensor found = at::empty({rows.hidden.size(0)}, hidden.options().dtype(at::kFloat));
  const at::Tensor log_sums = at::empty_like(found), entropies = options.entropy ? at::empty_like(found) : at::Tensor();
  each_chunk(rows.hidden, weight, bias, options.softcap,
             [&](int64_t first, const at::Tensor& chunk, at::Tensor& logits, const at::Tensor&) {
               const int64_t n = chunk.size(0);
               TokenLogProb s = token_log_prob(logits, rows.targets.narrow(0, first, n), options,
                                               log_sums.narrow(0, first, n), part_of(entropies, first, n));
               s.log_probs = static_cast<float*>(mutable_data(found.narrow(0, first, n)));
               run_token_log_prob(logits, s, /*gradient=*/false);
             });
  LogProbs out{.log_probs = among_all(found, rows, targets.numel())};
  if (options.entropy) out.entropies = among_all(entropies, rows, targets.numel());
  return {log_sums, out};
}

struct LogProbFunction : torch::autograd::Function<LogProbFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, const at::Tensor& targets,
                               const LogProbOptions& options) {
    const auto [log_sums, out] = log_probs(hidden, weight, bias.value_or(at::Tensor()), targets, options);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({hidden, weight, bias.value_or(at::Tensor()), targets, log_sums, out.entropies});
    ctx->saved_data["ignore_index"] = options.ignore_index;
    ctx->saved_data["temperature"] = options.temperature;
    ctx->saved_data["softcap"] = options.softcap;
    return options.entropy ? variable_list{out.log_probs, out.entropies} : variable_list{out.log_probs};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& incoming) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &weight = saved[1], &bias = saved[2], &targets = saved[3],
                     &log_sums = saved[4];
    const LogProbOptions options{.ignore_index = ctx->saved_data["ignore_index"].toInt(),
                                 .temperature = ctx->saved_data["temperature"].toDouble(),
                                 .softcap = ctx->saved_data["softcap"].toDouble()};
    const Selection rows = select(hidden, targets, weight.size(0), options.ignore_index);
    const auto chosen = [&](const at::Tensor& values) {  // of the rows that count, [n]
      if (!values.defined()) return values;
      return rows.index.defined() ? values.index_select(0, rows.index) : values.contiguous();
    };
    const at::Tensor of_log_probs = chosen(incoming[0]);
    const at::Tensor of_entropies = incoming.size() > 1 ? chosen(incoming[1]) : at::Tensor();
    const at::Tensor entropies = of_entropies.defined() ? chosen(saved[5]) : at::Tensor();
    Gradients wanted{.of_hidden = ctx->needs_input_grad(0),
                     .of_weight = ctx->needs_input_grad(1),
                     .of_bias = bias.defined() && ctx->needs_input_grad(2)};
    wanted.begin(rows, weight, bias);
    each_chunk(rows.hidden, weight, bias, options.softcap,
               [&](int64_t first, const at::Tensor& chunk, at::Tensor& logits, const at::Tensor& tanh) {
                 const int64_t n = chunk.size(0);
                 TokenLogProb s = token_log_prob(logits, rows.targets.narrow(0, first, n), options,
                                                 log_sums.narrow(0, first, n), part_of(entropies, first, n));
                 const at::Tensor by_token = part_of(of_log_probs, first, n),
                                  by_entropy = part_of(of_entropies, first, n);
                 s.of_log_probs = static_cast<const float*>(data(by_token));
                 s.of_entropies = static_cast<const float*>(data(by_entropy));
                 run_token_log_prob(logits, s, /*gradient=*/true);
                 if (tanh.defined()) at::tanh_backward_out(logits, logits, tanh);
                 wanted.add(first, logits, chunk, weight);
               });
    wanted.finish(rows, hidden, bias);
    return {wanted.hidden, wanted.weight, wanted.bias, at::Tensor(), at::Tensor()};
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
  Gradients wanted{
      .of_hidden = wants_gradient(hidden), .of_weight = wants_gradient(weight), .of_bias = wants_gradient(bias)};
  if (!wanted.any()) return scaled_sum(run(hidden, weight, bias, targets, options, wanted), options.scale);
  return CrossEntropyFunction::apply(hidden, weight, optional(bias), targets, options, wanted);
}

LogProbs linear_log_prob(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                         const LogProbOptions& options, const at::Tensor& bias) {
  check_loss(hidden, weight, targets, bias);
  LLMTK_CHECK(options.temperature > 0, "a temperature of ", options.temperature);
  if (!all_fused(hidden, weight)) return reference::linear_log_prob(hidden, weight, targets, options, bias);
  if (!wants_gradient(hidden, weight, bias)) return log_probs(hidden, weight, bias, targets, options).second;
  const variable_list found = LogProbFunction::apply(hidden, weight, optional(bias), targets, options);
  return {found[0], options.entropy ? found[1] : at::Tensor()};
}

}  // namespace llmtk::kernels
