#include "kernels/cpu.h"

#include <hwy/highway.h>
#include <hwy/targets.h>

#include <vector>

namespace llmtk::kernels::cpu {

const char* target() {
  // The same choice that Highway's dispatch makes: the lowest bit is the best target.
  const int64_t both = hwy::SupportedTargets() & (HWY_AVX2 | HWY_AVX3);
  return hwy::TargetName(both & -both);
}

bool has_bfloat16_products() {
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

float* scratch(int64_t size) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < static_cast<size_t>(size)) buffer.resize(static_cast<size_t>(size));
  return buffer.data();
}

}  // namespace llmtk::kernels::cpu
