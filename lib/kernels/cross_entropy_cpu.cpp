#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>
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

/// log p(v) may be -infinity where p(v) is 0: their product is 0.
constexpr float kLeastLog = -87.0f;

/// f as sum_of has it, its index from `begin` on. Block by block: a sum of a whole vocabulary in single precision would
/// lose digits that the entropy needs.
template <class F>
double sum_by_blocks(int64_t n, F&& f) {
  constexpr int64_t kBlock = 4096;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock)
    total += sum_of(std::min(kBlock, n - begin), [&](int64_t i, auto at, V& sum) { f(begin + i, at, sum); });
  return total;
}

template <class T>
void log_prob_row(const TokenLogProb& s, int64_t row) {
  const T* x = static_cast<const T*>(s.logits) + row * s.V;
  const float top = max_of(x, s.V);
  const V shift = set(top), factor = set(s.inverse_temperature);
  const auto shifted = [&](int64_t i, auto at) { return hn::Mul(hn::Sub(at.get(x + i, kLowest), shift), factor); };
  const double sum =
      sum_by_blocks(s.V, [&](int64_t i, auto at, V& total) { total = hn::Add(total, exp(shifted(i, at))); });
  const auto log_sum = static_cast<float>(std::log(sum));
  s.log_probs[row] = (as_float(x[s.targets[row]]) - top) * s.inverse_temperature - log_sum;
  s.log_sums[row] = top * s.inverse_temperature + log_sum;
  if (!s.entropies) return;
  const double weighted = sum_by_blocks(s.V, [&](int64_t i, auto at, V& total) {
    const V z = shifted(i, at);
    total = hn::MulAdd(exp(z), hn::Max(z, set(kLeastLog)), total);
  });
  s.entropies[row] = static_cast<float>(std::log(sum) - weighted / sum);
}

template <class T>
void log_prob_gradient_row(const TokenLogProb& s, int64_t row) {
  T* x = static_cast<T*>(s.logits) + row * s.V;
  const int64_t target = s.targets[row];
  const float of_log_prob = s.of_log_probs ? s.of_log_probs[row] : 0.0f;
  const float of_entropy = s.of_entropies ? s.of_entropies[row] : 0.0f;
  const float target_logit = as_float(x[target]);
  const V scale = set(s.inverse_temperature), log_sum = set(s.log_sums[row]);
  const V by_probability = set(-of_log_prob * s.inverse_temperature);
  const V by_entropy = set(-of_entropy * s.inverse_temperature), entropy = set(s.entropies ? s.entropies[row] : 0.0f);
  const auto gradient = [&](V logit) {
    const V log_p = hn::MulSub(logit, scale, log_sum);
    V slope = by_probability;
    if (of_entropy != 0.0f) slope = hn::MulAdd(hn::Add(hn::Max(log_p, set(kLeastLog)), entropy), by_entropy, slope);
    return hn::Mul(exp(log_p), slope);
  };
  sweep(s.V, [&](int64_t i, auto at) { at.put(gradient(at.get(x + i, kLowest)), x + i); });
  Part{1}.put(hn::Add(gradient(set(target_logit)), set(of_log_prob * s.inverse_temperature)), x + target);
}

void token_log_prob_any(const TokenLogProb& s, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    s.type == Type::float32 ? log_prob_row<float>(s, row) : log_prob_row<BFloat16>(s, row);
}

void token_log_prob_gradient_any(const TokenLogProb& s, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row)
    s.type == Type::float32 ? log_prob_gradient_row<float>(s, row) : log_prob_gradient_row<BFloat16>(s, row);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(softmax_loss_any);
HWY_EXPORT(token_log_prob_any);
HWY_EXPORT(token_log_prob_gradient_any);

void cpu::softmax_loss(const SoftmaxLoss& s, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(softmax_loss_any)(s, begin, end);
}

void cpu::token_log_prob(const TokenLogProb& s, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(token_log_prob_any)(s, begin, end);
}

void cpu::token_log_prob_gradient(const TokenLogProb& s, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(token_log_prob_gradient_any)(s, begin, end);
}
}  // namespace llmtk::kernels
#endif
