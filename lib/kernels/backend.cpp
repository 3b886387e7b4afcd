#include "kernels/backend.h"

#include <ATen/Context.h>

#include <atomic>
#include <cstdlib>
#include <string_view>

#include "kernels/cpu.h"

namespace llmtk::kernels {
namespace {

std::atomic<Backend>& current() {
  static std::atomic<Backend> value = [] {
    const char* word = std::getenv("LLMTK_KERNELS");
    return word && std::string_view(word) == "reference" ? Backend::reference : Backend::automatic;
  }();
  return value;
}

}  // namespace

void set_backend(Backend backend) { current() = backend; }
Backend backend() { return current(); }

const char* cpu_target() { return cpu::target(); }

bool use_fused(const at::Tensor& tensor) {
  if (backend() == Backend::reference) return false;
  if (tensor.scalar_type() != at::kFloat && tensor.scalar_type() != at::kBFloat16) return false;
#ifdef LLMTK_WITH_CUDA
  if (tensor.is_cuda()) return true;
#endif
  return tensor.is_cpu() && tensor.layout() == at::kStrided;
}

bool fast_bfloat16_products() {
  static const bool fast = cpu::has_bfloat16_products();
  return fast;
}

}  // namespace llmtk::kernels
