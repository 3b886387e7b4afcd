#include "kernels/optimizer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "core/error.h"
#include "kernels/optimizer_impl.h"
#include "kernels/tensors.h"

namespace llmtk::kernels {

// Low words of the master are taken as if rounding were half away from zero: then they always fit 16 bits.
std::pair<at::Tensor, at::Tensor> split_master(const at::Tensor& master) {
  LLMTK_CHECK(master.scalar_type() == at::kFloat, "the master is ", master.scalar_type());
  const at::Tensor bits = master.contiguous().view(at::kInt);
  const at::Tensor high = at::bitwise_right_shift(bits + 0x8000, 16);  // round half away from zero
  const at::Tensor low = bits - at::bitwise_left_shift(high, 16);
  return {high.to(at::kShort).view(at::kBFloat16), low.to(at::kShort)};
}

at::Tensor join_master(const at::Tensor& weight, const at::Tensor& extra) {
  LLMTK_CHECK(weight.scalar_type() == at::kBFloat16 && extra.scalar_type() == at::kShort, "weight is ",
              weight.scalar_type(), ", extra is ", extra.scalar_type());
  const at::Tensor high = weight.contiguous().view(at::kShort).to(at::kInt);
  return (at::bitwise_left_shift(high, 16) + extra.to(at::kInt)).view(at::kFloat);
}

namespace reference {
namespace {

/// The float32 master of a parameter: itself, or joined.
at::Tensor master_of(const at::Tensor& param, const at::Tensor& extra) {
  return param.scalar_type() == at::kFloat ? param : join_master(param, extra);
}

void store_master(at::Tensor& param, at::Tensor& extra, const at::Tensor& master) {
  if (param.scalar_type() == at::kFloat) return;
  const auto [weight, low] = split_master(master);
  param.copy_(weight);
  extra.copy_(low);
}

}  // namespace

void adamw_step(std::span<AdamWTensor> tensors, const AdamWOptions& options) {
  const at::NoGradGuard no_grad;
  const double correction1 = 1.0 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1.0 - std::pow(options.beta2, static_cast<double>(options.step));
  for (AdamWTensor& t : tensors) {
    const double lr = options.lr * t.lr_scale;
    const at::Tensor grad = t.grad.to(at::kFloat) * options.grad_scale;
    at::Tensor master = master_of(t.param, t.extra);
    master.mul_(1.0 - lr * t.weight_decay);
    t.exp_avg.lerp_(grad, 1.0 - options.beta1);
    t.exp_avg_sq.mul_(options.beta2).addcmul_(grad, grad, 1.0 - options.beta2);
    const at::Tensor denominator = t.exp_avg_sq.sqrt().div_(std::sqrt(correction2)).add_(options.eps);
    master.addcdiv_(t.exp_avg, denominator, -lr / correction1);
    store_master(t.param, t.extra, master);
    if (options.zero_grad) t.grad.zero_();
  }
}

void sgd_step(std::span<SgdTensor> tensors, const SgdOptions& options) {
  const at::NoGradGuard no_grad;
  for (SgdTensor& t : tensors) {
    at::Tensor master = master_of(t.param, t.extra);
    at::Tensor grad = t.grad.to(at::kFloat) * options.grad_scale + master * t.weight_decay;
    if (options.momentum != 0.0) {
      t.momentum.mul_(options.momentum).add_(grad);
      grad = options.nesterov ? grad + t.momentum * options.momentum : t.momentum;
    }
    master.sub_(grad * (options.lr * t.lr_scale));
    store_master(t.param, t.extra, master);
    if (options.zero_grad) t.grad.zero_();
  }
}

double squared_norm(std::span<const at::Tensor> tensors) {
  double sum = 0.0;
  for (const at::Tensor& t : tensors) sum += t.detach().to(at::kDouble).square().sum().item<double>();
  return sum;
}

}  // namespace reference

namespace {

constexpr int64_t kChunk = int64_t{128} << 10;  // elements: some 2 MiB of param, grad and state together

/// A piece of one tensor of a list.
struct Piece {
  size_t tensor;
  int64_t begin, n;
};

/// Pieces of at most kChunk elements (whole tensors on a GPU).
template <class Tensors, class Size>
std::vector<Piece> pieces_of(const Tensors& tensors, Size&& size, int64_t chunk = kChunk) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t n = size(tensors[i]);
    for (int64_t begin = 0; begin < n; begin += chunk) pieces.push_back({i, begin, std::min(chunk, n - begin)});
  }
  return pieces;
}

template <class T>
T* advance(const at::Tensor& x, int64_t elements) {
  return x.defined() ? static_cast<T*>(x.mutable_data_ptr()) + elements : nullptr;
}
void* advance_bytes(const at::Tensor& x, int64_t elements) {
  return static_cast<char*>(x.mutable_data_ptr()) + elements * x.element_size();
}

/// What the steps ask of a parameter's tensors; false where the fused kernels do not know the dtypes.
bool check(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& extra,
           std::initializer_list<at::Tensor> states) {
  const bool narrow = param.scalar_type() == at::kBFloat16;
  LLMTK_CHECK(!narrow || (extra.defined() && extra.scalar_type() == at::kShort),
              "a bfloat16 parameter needs its int16 extra bits");
  for (const at::Tensor& t : states)
    LLMTK_CHECK(!t.defined() || (t.is_contiguous() && t.numel() == param.numel() && t.device() == param.device()),
                "state is ", t.sizes(), ", param is ", param.sizes());
  LLMTK_CHECK(param.is_contiguous() && grad.sizes() == param.sizes(), "param is ", param.sizes(), " with strides ",
              param.strides(), ", grad is ", grad.sizes());
  const bool known_grad = grad.scalar_type() == at::kFloat || grad.scalar_type() == at::kBFloat16;
  return use_fused(param) && known_grad && grad.is_contiguous();
}

/// Runs the pieces: on the CPU over all threads, on a GPU one kernel each.
template <class Tensor, class Make, class Cpu, class Cuda>
void run(const std::vector<Tensor>& tensors, Make&& make, Cpu&& on_cpu, [[maybe_unused]] Cuda&& on_cuda) {
  if (tensors.empty()) return;
  const auto size = [](const Tensor& t) { return t.param.numel(); };
#ifdef LLMTK_WITH_CUDA
  if (tensors[0].param.is_cuda()) {
    const OnDevice device(tensors[0].param);
    for (const Piece& piece : pieces_of(tensors, size, int64_t{1} << 40))
      on_cuda(make(tensors[piece.tensor], piece), device.stream());
    return;
  }
#endif
  const std::vector<Piece> pieces = pieces_of(tensors, size);
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      on_cpu(make(tensors[piece.tensor], piece));
    }
  });
}

/// Splits a list by the dtypes' support, and by device: {fused ones}, the rest are stepped by `otherwise` one by one.
template <class Tensor, class IsFused, class Otherwise>
std::vector<Tensor> fused_ones(std::span<Tensor> tensors, IsFused&& is_fused, Otherwise&& otherwise) {
  std::vector<Tensor> fused;
  for (Tensor& t : tensors) {
    const bool same_device = fused.empty() || fused[0].param.device() == t.param.device();
    if (is_fused(t) && same_device)
      fused.push_back(t);
    else
      otherwise(std::span<Tensor>(&t, 1));
  }
  return fused;
}

}  // namespace

void adamw_step(std::span<AdamWTensor> tensors, const AdamWOptions& options) {
  LLMTK_CHECK(options.step >= 1, "step is ", options.step, "; the first is 1");
  const auto is_fused = [](const AdamWTensor& t) { return check(t.param, t.grad, t.extra, {t.exp_avg, t.exp_avg_sq, t.extra}); };
  const std::vector<AdamWTensor> fused =
      fused_ones(tensors, is_fused, [&](std::span<AdamWTensor> one) { reference::adamw_step(one, options); });
  const double correction1 = 1.0 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1.0 - std::pow(options.beta2, static_cast<double>(options.step));
  const auto make = [&](const AdamWTensor& t, const Piece& piece) {
    const double lr = options.lr * t.lr_scale;
    AdamWChunk c{.param_type = type_of(t.param), .grad_type = type_of(t.grad), .n = piece.n};
    c.param = advance_bytes(t.param, piece.begin);
    c.grad = advance_bytes(t.grad, piece.begin);
    c.exp_avg = advance<float>(t.exp_avg, piece.begin);
    c.exp_avg_sq = advance<float>(t.exp_avg_sq, piece.begin);
    c.extra = c.param_type == Type::bfloat16 ? advance<int16_t>(t.extra, piece.begin) : nullptr;
    c.decay = static_cast<float>(1.0 - lr * t.weight_decay);
    c.step_size = static_cast<float>(lr / correction1);
    c.inverse_correction = static_cast<float>(1.0 / std::sqrt(correction2));
    c.one_minus_beta1 = static_cast<float>(1.0 - options.beta1);
    c.beta2 = static_cast<float>(options.beta2);
    c.one_minus_beta2 = static_cast<float>(1.0 - options.beta2);
    c.eps = static_cast<float>(options.eps);
    c.grad_scale = static_cast<float>(options.grad_scale);
    c.zero_grad = options.zero_grad;
    return c;
  };
#ifdef LLMTK_WITH_CUDA
  run(fused, make, cpu::adamw, cuda::adamw);
#else
  run(fused, make, cpu::adamw, nullptr);
#endif
}

void sgd_step(std::span<SgdTensor> tensors, const SgdOptions& options) {
  for (const SgdTensor& t : tensors)
    LLMTK_CHECK(options.momentum == 0.0 || t.momentum.defined(), "momentum needs its buffer");
  const auto is_fused = [](const SgdTensor& t) { return check(t.param, t.grad, t.extra, {t.momentum, t.extra}); };
  const std::vector<SgdTensor> fused =
      fused_ones(tensors, is_fused, [&](std::span<SgdTensor> one) { reference::sgd_step(one, options); });
  const auto make = [&](const SgdTensor& t, const Piece& piece) {
    SgdChunk c{.param_type = type_of(t.param), .grad_type = type_of(t.grad), .n = piece.n};
    c.param = advance_bytes(t.param, piece.begin);
    c.grad = advance_bytes(t.grad, piece.begin);
    c.momentum = options.momentum == 0.0 ? nullptr : advance<float>(t.momentum, piece.begin);
    c.extra = c.param_type == Type::bfloat16 ? advance<int16_t>(t.extra, piece.begin) : nullptr;
    c.lr = static_cast<float>(options.lr * t.lr_scale);
    c.weight_decay = static_cast<float>(t.weight_decay);
    c.momentum_factor = static_cast<float>(options.momentum);
    c.grad_scale = static_cast<float>(options.grad_scale);
    c.nesterov = options.nesterov;
    c.zero_grad = options.zero_grad;
    return c;
  };
#ifdef LLMTK_WITH_CUDA
  run(fused, make, cpu::sgd, cuda::sgd);
#else
  run(fused, make, cpu::sgd, nullptr);
#endif
}

double squared_norm(std::span<const at::Tensor> tensors) {
  double total = 0.0;
  std::vector<at::Tensor> fused;
  for (const at::Tensor& t : tensors) {
    if (t.numel() == 0) continue;
    const bool same_device = fused.empty() || fused[0].device() == t.device();
    if (use_fused(t) && same_device && t.is_non_overlapping_and_dense())
      fused.push_back(t);
    else
      total += reference::squared_norm(std::span(&t, 1));
  }
  if (fused.empty()) return total;
#ifdef LLMTK_WITH_CUDA
  if (fused[0].is_cuda()) {
    constexpr int kBlocks = 128;
    const OnDevice device(fused[0]);
    const at::Tensor parts = at::empty({static_cast<int64_t>(fused.size()), kBlocks}, fused[0].options().dtype(at::kDouble));
    for (size_t i = 0; i < fused.size(); ++i)
      cuda::squared_norm(type_of(fused[i]), data(fused[i]), fused[i].numel(),
                         parts.data_ptr<double>() + static_cast<int64_t>(i) * kBlocks, kBlocks, device.stream());
    return total + parts.sum().item<double>();
  }
#endif
  const std::vector<Piece> pieces = pieces_of(fused, [](const at::Tensor& t) { return t.numel(); });
  std::vector<double> sums(pieces.size());
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      const at::Tensor& t = fused[piece.tensor];
      const char* x = static_cast<const char*>(t.const_data_ptr()) + piece.begin * t.element_size();
      sums[static_cast<size_t>(i)] = cpu::squared_norm(type_of(t), x, piece.n);
    }
  });
  for (const double sum : sums) total += sum;
  return total;
}

void accumulate_(at::Tensor& dst, const at::Tensor& src) {
  LLMTK_CHECK(dst.scalar_type() == at::kFloat && dst.sizes() == src.sizes(), "dst is ", dst.sizes(), " ",
              dst.scalar_type(), ", src is ", src.sizes());
  const at::NoGradGuard no_grad;
  if (!use_fused(dst) || !use_fused(src) || !dst.is_contiguous() || !src.is_contiguous()) {
    dst.add_(src);
    return;
  }
#ifdef LLMTK_WITH_CUDA
  if (dst.is_cuda()) {
    const OnDevice device(dst);
    cuda::accumulate(dst.data_ptr<float>(), type_of(src), data(src), dst.numel(), device.stream());
    return;
  }
#endif
  float* const to = dst.data_ptr<float>();
  const char* const from = static_cast<const char*>(data(src));
  parallel_rows(dst.numel(), 1, [&](int64_t begin, int64_t end) {
    cpu::accumulate(to + begin, type_of(src), from + begin * src.element_size(), end - begin);
  });
}

}  // namespace llmtk::kernels
