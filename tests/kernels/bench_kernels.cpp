// Times the fused kernels against what plain ATen would do: forward and backward together, in turns, the best of each.
// Not a test: scripts/bench kernels builds and runs it.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/runtime.h"
#include "kernels/activation.h"
#include "kernels/backend.h"
#include "kernels/cross_entropy.h"
#include "kernels/dropout.h"
#include "kernels/linear.h"
#include "kernels/lora.h"
#include "kernels/norm.h"
#include "kernels/optimizer.h"
#include "kernels/rotary.h"

using namespace llmtk;
using Tensors = std::vector<at::Tensor>;
using Operation = std::function<Tensors(const Tensors&)>;

namespace {

struct Options {
  c10::Device device = c10::kCPU;
  double seconds = 1.0;  ///< per comparison
  int64_t rows = 1024;   ///< tokens: 4 x 256, as in the pretraining bench
  std::string only;
};
Options options;

double milliseconds_of(const std::function<void()>& f) {
  const auto finish = [] {
    if (options.device.is_cuda()) at::zeros({1}, options.device).item<float>();
  };
  finish();
  const auto start = std::chrono::steady_clock::now();
  f();
  finish();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

/// Runs both in turns and prints the best times.
void race(const std::string& name, const std::function<void()>& fused, const std::function<void()>& plain) {
  if (name.find(options.only) == std::string::npos) return;
  std::vector<double> a, b;
  double total = 0.0;
  for (int i = 0; i < 2; ++i) fused(), plain();  // warm
  while (a.size() < 5 || (total < options.seconds * 1e3 && a.size() < 1000)) {
    a.push_back(milliseconds_of(fused));
    b.push_back(milliseconds_of(plain));
    total += a.back() + b.back();
  }
  // The best of each: what the machine does when nothing else disturbs it.
  const double x = *std::min_element(a.begin(), a.end()), y = *std::min_element(b.begin(), b.end());
  std::printf("%-42s %10.3f %10.3f %7.2f\n", name.c_str(), x, y, y / x);
  std::fflush(stdout);
}

/// Forward and backward; gradients of all leaves that ask for one.
void both_ways(const Operation& operation, const Tensors& leaves, const Tensors& gradients) {
  const Tensors out = operation(leaves);
  Tensors wanted;
  for (const at::Tensor& leaf : leaves)
    if (leaf.defined() && leaf.requires_grad()) wanted.push_back(leaf);
  torch::autograd::grad(out, wanted, gradients);
}

void compare(const std::string& name, const Operation& fused, const Operation& plain, const Tensors& leaves) {
  Tensors gradients;
  for (const at::Tensor& y : fused(leaves)) gradients.push_back(at::ones_like(y));
  race(
      name, [&] { both_ways(fused, leaves, gradients); }, [&] { both_ways(plain, leaves, gradients); });
}

at::Tensor leaf(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape).to(options.device, dtype).set_requires_grad(true);
}

void norms(at::ScalarType dtype, const std::string& suffix) {
  const int64_t H = 768;
  const at::Tensor x = leaf({options.rows, H}, dtype), residual = leaf({options.rows, H}, dtype);
  const at::Tensor weight = leaf({H}, dtype), bias = leaf({H}, dtype);
  compare(
      "layer_norm" + suffix, [](const Tensors& t) { return Tensors{kernels::layer_norm(t[0], t[1], t[2], 1e-5)}; },
      [=](const Tensors& t) { return Tensors{at::layer_norm(t[0], {H}, t[1], t[2], 1e-5)}; }, {x, weight, bias});
  compare(
      "add + layer_norm" + suffix,
      [](const Tensors& t) {
        const auto [sum, y] = kernels::add_layer_norm(t[0], t[1], t[2], t[3], 1e-5);
        return Tensors{sum, y};
      },
      [=](const Tensors& t) {
        const at::Tensor sum = t[0] + t[1];
        return Tensors{sum, at::layer_norm(sum, {H}, t[2], t[3], 1e-5)};
      },
      {x, residual, weight, bias});
  compare(
      "rms_norm" + suffix, [](const Tensors& t) { return Tensors{kernels::rms_norm(t[0], t[1], 1e-6)}; },
      [=](const Tensors& t) { return Tensors{at::rms_norm(t[0], {H}, t[1], 1e-6)}; }, {x, weight});
  compare(
      "add + rms_norm" + suffix,
      [](const Tensors& t) {
        const auto [sum, y] = kernels::add_rms_norm(t[0], t[1], t[2], 1e-6);
        return Tensors{sum, y};
      },
      [=](const Tensors& t) {
        const at::Tensor sum = t[0] + t[1];
        return Tensors{sum, at::rms_norm(sum, {H}, t[2], 1e-6)};
      },
      {x, residual, weight});
}

void activations(at::ScalarType dtype, const std::string& suffix) {
  const at::Tensor x = leaf({options.rows, 3072}, dtype), up = leaf({options.rows, 3072}, dtype);
  for (const bool tanh : {false, true})
    compare((tanh ? "gelu, tanh" : "gelu") + suffix,
            [=](const Tensors& t) { return Tensors{kernels::gelu(t[0], tanh)}; },
            [=](const Tensors& t) { return Tensors{at::gelu(t[0], tanh ? "tanh" : "none")}; }, {x});
  compare(
      "swiglu" + suffix, [](const Tensors& t) { return Tensors{kernels::swiglu(t[0], t[1])}; },
      [](const Tensors& t) { return Tensors{at::silu(t[0]) * t[1]}; }, {x, up});
}

void rotaries(at::ScalarType dtype, const std::string& suffix) {
  const int64_t T = 256, B = options.rows / T, D = 64;
  const at::Tensor q = leaf({B, T, 9 * D}, dtype), k = leaf({B, T, 3 * D}, dtype);
  const at::Tensor angles = at::rand({T, D}).to(options.device);
  const at::Tensor cos = at::cos(angles), sin = at::sin(angles);
  const at::Tensor plain_cos = cos.to(dtype), plain_sin = sin.to(dtype);
  const auto heads = [=](const at::Tensor& t) { return t.view({B, T, -1, D}).transpose(1, 2); };
  const auto plain = [=](const at::Tensor& t) {
    const at::Tensor x = heads(t);
    return x * plain_cos + at::cat({-x.narrow(-1, D / 2, D / 2), x.narrow(-1, 0, D / 2)}, -1) * plain_sin;
  };
  compare(
      "rotary" + suffix,
      [=](const Tensors& t) {
        const auto [a, b] = kernels::rotary(heads(t[0]), heads(t[1]), cos, sin);
        return Tensors{a, b};
      },
      [=](const Tensors& t) {
        return Tensors{plain(t[0]), plain(t[1])};
      },
      {q, k});
}

void losses(at::ScalarType dtype, const std::string& suffix) {
  const int64_t V = 32768, H = 256;  // a narrow model: the loss shows beside the products
  const at::Tensor hidden = leaf({options.rows, H}, dtype), weight = leaf({V, H}, dtype);
  const at::Tensor targets = at::randint(V, {options.rows}, at::kLong).to(options.device);
  compare(
      "linear + cross-entropy" + suffix,
      [=](const Tensors& t) { return Tensors{kernels::linear_cross_entropy(t[0], t[1], targets)}; },
      [=](const Tensors& t) {
        const at::Tensor logits = kernels::linear(t[0], t[1]).to(at::kFloat);
        return Tensors{at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum)};
      },
      {hidden, weight});
}

void optimizers(bool narrow, const std::string& suffix) {
  const int64_t n = 16 << 20;
  const auto wide = at::TensorOptions().device(options.device);
  const at::ScalarType dtype = narrow ? at::kBFloat16 : at::kFloat;
  kernels::AdamWTensor t{.param = at::randn({n}, wide), .grad = at::randn({n}, wide).to(dtype)};
  at::Tensor master = t.param.clone(), weight = master.to(dtype), wide_grad = t.grad.to(at::kFloat);
  if (narrow) std::tie(t.param, t.extra) = kernels::split_master(t.param);
  t.exp_avg = at::zeros({n}, wide);
  t.exp_avg_sq = at::zeros({n}, wide);
  at::Tensor m = at::zeros({n}, wide), v = at::zeros({n}, wide), step = at::ones({}, wide);
  race(
      "AdamW" + suffix, [&] { kernels::adamw_step(std::span(&t, 1), {}); },
      [&] {
        if (narrow) wide_grad.copy_(t.grad);
        at::_fused_adamw_(at::TensorList(master), at::TensorList(wide_grad), at::TensorList(m), at::TensorList(v), {},
                          at::TensorList(step), 1e-3, 0.9, 0.999, 0.01, 1e-8, false, false);
        if (narrow) weight.copy_(master);
      });
  race(
      "squared norm" + suffix, [&] { kernels::squared_norm(std::span(&t.grad, 1)); },
      [&] { at::linalg_vector_norm(t.grad, 2, std::nullopt, false, at::kFloat).item<float>(); });
}

void products(at::ScalarType dtype, const std::string& suffix) {
  const at::Tensor x = leaf({256, 768}, dtype), weight = leaf({768, 768}, dtype);
  compare(
      "linear" + suffix, [](const Tensors& t) { return Tensors{kernels::linear(t[0], t[1])}; },
      [](const Tensors& t) { return Tensors{at::linear(t[0], t[1])}; }, {x, weight});
}

void dropouts(at::ScalarType dtype, const std::string& suffix) {
  const at::Tensor x = leaf({options.rows, 768}, dtype);
  compare(
      "dropout" + suffix, [](const Tensors& t) { return Tensors{kernels::dropout(t[0], 0.1)}; },
      [](const Tensors& t) { return Tensors{at::dropout(t[0], 0.1, true)}; }, {x});
}

/// The branch alone: its product with the weight would hide it.
void low_rank(at::ScalarType dtype, const std::string& suffix) {
  const at::Tensor x = leaf({2 * options.rows, 576}, dtype);
  const at::Tensor a = leaf({8, 576}, at::kFloat), b = leaf({576, 8}, at::kFloat);
  for (const double p : {0.0, 0.1})
    compare(
        std::string(p > 0 ? "LoRA's branch, dropout" : "LoRA's branch") + suffix,
        [=](const Tensors& t) { return Tensors{kernels::lora_linear(t[0], {}, {}, t[1], t[2], 4, p)}; },
        [=](const Tensors& t) {  // as peft has it: in float32
          const at::Tensor wide = t[0].to(at::kFloat), seen = p > 0 ? at::dropout(wide, p, true) : wide;
          return Tensors{(at::linear(at::linear(seen, t[1]), t[2]) * 4).to(t[0].scalar_type())};
        },
        {x, a, b});
}

int run(int argc, char** argv) {
  int threads = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool has_value = i + 1 < argc;
    if (word == "--only" && has_value) {
      options.only = argv[++i];
    } else if (word == "--device" && has_value) {
      options.device = resolve_device(argv[++i]);
    } else if (word == "--seconds" && has_value) {
      options.seconds = std::stod(argv[++i]);
    } else if (word == "--rows" && has_value) {
      options.rows = std::max<int64_t>(256, std::stoll(argv[++i]) / 256 * 256);
    } else if (word == "--threads" && has_value) {
      threads = std::stoi(argv[++i]);
    } else {
      std::puts(
          "Usage: bench_kernels [--device cpu|cuda] [--only WORD] [--rows N] [--seconds S] [--threads N]\n\n"
          "Forward and backward of each fused kernel against plain ATen, in turns; the best times in milliseconds, how "
          "many\n"
          "times faster the fused one is.");
      return word == "--help" || word == "-h" ? 0 : 2;
    }
  }
  setup_runtime(threads);
  std::printf("%s, %d threads, %s; %ld rows\n", options.device.str().c_str(), at::get_num_threads(),
              kernels::cpu_target(), static_cast<long>(options.rows));
  std::printf("%-42s %10s %10s %7s\n", "", "fused ms", "ATen ms", "times");
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const std::string suffix = ", " + dtype_name(dtype);
    norms(dtype, suffix);
    activations(dtype, suffix);
    rotaries(dtype, suffix);
    losses(dtype, suffix);
    optimizers(dtype == at::kBFloat16, suffix);
    dropouts(dtype, suffix);
    low_rank(dtype, suffix);
    products(dtype, suffix);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
