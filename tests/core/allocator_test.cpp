#include "core/allocator.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <thread>

#include "core/runtime.h"
#include "test.h"

using namespace llmtk;

TEST_CASE("large tensors come from blocks that are kept, split and joined") {
#ifdef __SANITIZE_ADDRESS__
  LLMTK_SKIP("the sanitizers keep LibTorch's own allocator");
#endif
  install_cpu_allocator();
  const uint64_t before = allocator_statistics().in_use;
  void* address = nullptr;
  {
    const at::Tensor x = at::empty({3 << 20});  // 12 MiB
    address = x.data_ptr();
    CHECK(reinterpret_cast<uintptr_t>(address) % 64 == 0);
    CHECK(allocator_statistics().in_use - before == 12 << 20);
  }
  CHECK(allocator_statistics().in_use == before);
  CHECK(allocator_statistics().cached >= 12 << 20);
  const uint64_t maps = allocator_statistics().maps;
  {
    const at::Tensor a = at::empty({1 << 20}), b = at::empty({1 << 20});  // both fit into what is there
    CHECK(a.data_ptr() == address);
    CHECK(allocator_statistics().maps == maps);
  }
  CHECK(at::empty({3 << 20}).data_ptr() == address);  // the parts joined again
  release_cached();
  CHECK(allocator_statistics().cached == 0);
  CHECK(at::zeros({3 << 20}).sum().item<float>() == 0.0f);
}

TEST_CASE("memory does not balloon, and nothing is handed out twice") {
#ifdef __SANITIZE_ADDRESS__
  LLMTK_SKIP("the sanitizers keep LibTorch's own allocator");
#endif
  install_cpu_allocator();
  release_cached();
  const uint64_t base = allocator_statistics().in_use;
  uint64_t most = 0;
  const auto work = [](uint64_t seed) {
    std::vector<at::Tensor> live;
    bool whole = true;
    for (int i = 0; i < 600; ++i) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      const int64_t n = 200000 + static_cast<int64_t>((seed >> 33) % 900000);
      live.push_back(at::full({n}, static_cast<float>(i)));
      if (live.size() > 8) {
        const size_t victim = (seed >> 20) % live.size();
        const at::Tensor& t = live[victim];
        whole = whole && t.min().item<float>() == t.max().item<float>();
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
      }
    }
    return whole;
  };
  bool first = false, second = false;
  std::thread other([&] { first = work(1); });
  second = work(2);
  other.join();
  CHECK(first);
  CHECK(second);
  const AllocatorStatistics after = allocator_statistics();
  CHECK(after.in_use == base);
  most = after.cached;
  CHECK(most < 18 * 4400000 * 3 / 2);  // at most 1.5 times the largest sum of live tensors
}

TEST_CASE("the runtime's products are float32, and the peak is a rate") {
  setup_runtime(2);
  CHECK(at::get_num_threads() == 2);
  const at::Tensor a = at::randn({200, 300}), b = at::randn({300, 100});
  const at::Tensor exact = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  CHECK((at::mm(a, b).to(at::kDouble) - exact).abs().max().item<double>() < 2e-5 * exact.abs().max().item<double>());
  const double peak = gemm_peak(at::kFloat);
  CHECK(peak > 1e9);
  CHECK(gemm_peak(at::kFloat) == peak);
}
