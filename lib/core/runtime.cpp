#include "core/runtime.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>

#include "core/allocator.h"
#include "core/processors.h"

#ifdef LLMTK_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace llmtk {
namespace {

/// Largest error of a small float32 product against float64, relative to its largest element.
double product_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  return ((at::mm(a, b).to(at::kDouble) - exact).abs().max() / exact.abs().max()).item<double>();
}

/// LibTorch's "medium" precision sends float32 products to oneDNN, which beats MKL where MKL holds its AVX-512 code
/// back: on processors that have AVX-512 and are not Intel's. "medium" also allows bfloat16 inside; whether this
/// processor does that is found out by looking. Nothing here depends on timing: the same machine must compute the same
/// bits.
void pick_float32_product() {
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel") || !__builtin_cpu_supports("avx512f")) return;
  const at::NoGradGuard no_grad;
  constexpr int64_t kSize = 384;
  // A fixed pattern instead of random numbers: the generator's state belongs to the user.
  const at::Tensor ramp = at::arange(kSize * kSize, at::kFloat).reshape({kSize, kSize});
  const at::Tensor a = at::sin(ramp * 0.7311f), b = at::cos(ramp * 1.3177f);
  auto& context = at::globalContext();
  const double plain_error = product_error(a, b);
  context.setFloat32MatmulPrecision("medium");
  if (product_error(a, b) > 4.0 * plain_error + 1e-7) context.setFloat32MatmulPrecision("highest");
}

double measure_peak(c10::ScalarType dtype, c10::Device device) {
  const at::NoGradGuard no_grad;
  const int64_t size = device.is_cuda() ? 8192 : 1024;
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const at::Tensor a = at::full({size, size}, 0.5, options), b = at::full({size, size}, 0.25, options);
  at::Tensor out = at::empty({size, size}, options);
  const auto synchronize = [&] {
#ifdef LLMTK_WITH_CUDA
    if (device.is_cuda()) cudaDeviceSynchronize();
#endif
  };
  const double flops = 2.0 * std::pow(static_cast<double>(size), 3);
  double best = 1e30, total = 0.0;
  at::mm_out(out, a, b);
  synchronize();
  for (int i = 0; i < 50 && total < 0.3; ++i) {
    const auto start = std::chrono::steady_clock::now();
    at::mm_out(out, a, b);
    synchronize();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return flops / best;
}

}  // namespace

void setup_runtime(int threads) {
  // Memory that malloc has is kept: no early trimming, and mmap only for what is large.
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  install_cpu_allocator();
  at::set_num_threads(threads > 0 ? threads : usable_processors());
  pick_float32_product();
}

double gemm_peak(c10::ScalarType dtype, c10::Device device) {
  static std::mutex mutex;
  static std::map<std::pair<c10::ScalarType, int>, double> known;
  const std::lock_guard lock(mutex);
  const auto key = std::make_pair(dtype, device.is_cuda() ? 1 + device.index() : 0);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  double peak = measure_peak(dtype, device);
  // Where LibTorch has only a slow fallback for a dtype, kernels::linear goes through float32.
  if (dtype == c10::kBFloat16 && device.is_cpu()) peak = std::max(peak, measure_peak(c10::kFloat, device));
  return known[key] = peak;
}

}  // namespace llmtk
