// Times one kind of weight: bench_quant KIND ROWS OUT IN SECONDS [THREADS] prints a JSON object: the best times in
// milliseconds of the product alone (without a gradient) and with its gradient for x, the weight's bytes, and what the
// process grew by at its peak while it multiplied. Not a test: scripts/bench quant builds and runs it.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>

#include "core/runtime.h"
#include "kernels/linear.h"
#include "kernels/quantized.h"

using namespace llmtk;

namespace {

using Product = std::function<at::Tensor(const at::Tensor&)>;

double best_milliseconds(double seconds, const std::function<void()>& f) {
  using Clock = std::chrono::steady_clock;
  double best = 1e30;
  const auto begin = Clock::now();
  for (int i = 0; i < 3 || std::chrono::duration<double>(Clock::now() - begin).count() < seconds; ++i) {
    const auto start = Clock::now();
    f();
    best = std::min(best, std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  return best;
}

/// "VmHWM" or "VmRSS" of this process, in bytes.
long status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (word == key + ":") {
      long kilobytes = 0;
      status >> kilobytes;
      return kilobytes * 1024;
    }
  return 0;
}

/// The largest resident size while f runs, over that before.
long growth_of(const std::function<void()>& f) {
  std::ofstream("/proc/self/clear_refs") << "5";  // the peak is forgotten
  const long before = status_bytes("VmRSS");
  f();
  return status_bytes("VmHWM") - before;
}

int run(const std::string& kind, int64_t rows, int64_t out, int64_t in, double seconds, int threads) {
  setup_runtime(threads);
  const bool half = kind.ends_with("bfloat16");
  const at::ScalarType dtype = half ? at::kBFloat16 : at::kFloat;
  at::Tensor weight = at::randn({out, in}).mul_(0.02);
  Product product;
  int64_t bytes = 0;
  if (kind.starts_with("nf4") || kind.starts_with("int8")) {
    const bool is_int8 = kind.starts_with("int8");
    const auto matrix =
        kernels::quantize(weight, is_int8 ? kernels::QuantType::int8 : kernels::QuantType::nf4, !is_int8);
    bytes = matrix.bytes();
    product = [=](const at::Tensor& x) { return kernels::linear(x, matrix, {}, dtype); };
  } else {
    const at::Tensor plain = weight.to(dtype);
    bytes = static_cast<int64_t>(plain.nbytes());
    product = [=](const at::Tensor& x) { return kernels::linear(x, plain); };
  }
  weight.reset();
  at::Tensor x = at::randn({rows, in}).to(dtype);
  const at::Tensor dy = at::ones({rows, out}, x.options());
  const auto forward = [&] { product(x); };
  const double once = best_milliseconds(seconds, forward);
  x.set_requires_grad(true);
  const auto both = [&] { torch::autograd::grad({product(x)}, {x}, {dy}); };
  const long growth = growth_of(both);
  const double twice = best_milliseconds(seconds, both);
  std::printf("{\"forward\": %.4f, \"both\": %.4f, \"bytes\": %ld, \"growth\": %ld}\n", once, twice,
              static_cast<long>(bytes), growth);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::puts("Usage: bench_quant float32|bfloat16|nf4|nf4_bfloat16|int8 ROWS OUT IN SECONDS [THREADS]");
    return 2;
  }
  try {
    return run(argv[1], std::stoll(argv[2]), std::stoll(argv[3]), std::stoll(argv[4]), std::stod(argv[5]),
               argc > 6 ? std::stoi(argv[6]) : 0);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
