#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cross_entropy_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

float as_float(float x) { return x; }
float as_float(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

template <class T>
float max_of(const T* x, int64_t n) {
  const V top = fold(
      n, set(kLowest), [&](int64_t i, auto at, V& m) { m = hn::Max(m, at.get(x + i, kLowest)); },
      [](V& a, V b) { a = hn::Max(a, b); });
  return hn::GetLane(hn::MaxOfLanes(Floats(), top));
}

/// Three passes over a row that stays in the second-level cache: the maximum, the exponentials (kept in `powers`, so that
/// they are computed once) with their sum, the gradient. A NaN may slip past the maximum but not through the sum.
template <class T>
void loss_row(const SoftmaxLoss& s, int64_t row, float* powers) {
  T* x = static_cast<T*>(s.logits) + row * s.V;
  const int64_t target = s.targets[row];
  const float target_logit = as_float(x[target]);
  const float top = max_of(x, s.V);
  const V shift = set(top);
  const float sum = sum_of(s.V, [&](int64_t i, auto at, V& total) {
    const V power = exp(hn::Sub(at.get(x + i, kLowest), shift));
    if (powers) at.put(power, powers + i);
    total = hn::Add(total, power);
  });
  s.losses[row] = std::log(sum) + (top - target_logit);
  if (!powers) return;
  const V factor = set(s.scale / sum);
  sweep(s.V, [&](int64_t i, auto at) { at.put(hn::Mul(at.get(powers + i), factor), x + i); });
  Part{1}.put(set(s.scale * (powers[target] / sum - 1.0f)), x + target);
}

template <class T>
void loss_rows(const SoftmaxLoss& s, int64_t begin, int64_t end) {
  std::vector<float> powers(s.gradient ? static_cast<size_t>(s.V) : 0);
  for (int64_t row = begin; row < end; ++row) loss_row<T>(s, row, s.gradient ? powers.data() : nullptr);
}

void softmax_loss_any(const SoftmaxLoss& s, int64_t begin, int64_t end) {
  s.type == Type::float32 ? loss_rows<float>(s, begin, end) : loss_rows<BFloat16>(s, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(softmax_loss_any);

void cpu::softmax_loss(const SoftmaxLoss& s, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(softmax_loss_any)(s, begin, end);
}
}  // namespace llmtk::kernels
#endif
