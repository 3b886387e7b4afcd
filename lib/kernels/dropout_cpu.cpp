#include <bit>

#include "kernels/dropout_impl.h"

namespace llmtk::kernels::cpu {
namespace {

/// SplitMix64's output function (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// 32 bits for column j of a row with this key: a multiply-xorshift permutation, keyed before and within.
inline uint32_t random_bits(uint32_t j, uint32_t key, uint32_t second_key) {
  uint32_t x = j + key;
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= (x >> 15) ^ second_key;
  x *= 0x846CA68Bu;
  return x ^ (x >> 16);
}

inline float load(float x) { return x; }
inline float load(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline void store(float x, float& y) { y = x; }
inline void store(float x, BFloat16& y) {  // to the nearest, ties to even; NaN stays NaN
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40;
  y.bits = static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? nan : rounded);
}

/// f(element, factor) over rows; one loop without a branch, so that the compiler makes vectors of it.
template <class F>
void each(const Dropout& d, int64_t begin, int64_t end, F f) {
  for (int64_t row = begin; row < end; ++row) {
    const uint64_t key = mix(d.seed ^ mix(static_cast<uint64_t>(d.first_row + row) + 0x9E3779B97F4A7C15u));
    const auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
    const int64_t start = row * d.columns;
    for (int64_t j = 0; j < d.columns; ++j) {
      const uint32_t bits = random_bits(static_cast<uint32_t>(j), low, high);
      f(start + j, bits >= d.threshold ? d.scale : 0.0f);
    }
  }
}

template <class T>
void forward(const Dropout& d, const T* x, float* y, int64_t begin, int64_t end) {
  each(d, begin, end, [=](int64_t i, float factor) { y[i] = load(x[i]) * factor; });
}

template <class T>
void add(const Dropout& d, const float* x, T* y, int64_t begin, int64_t end) {
  each(d, begin, end, [=](int64_t i, float factor) { store(load(y[i]) + x[i] * factor, y[i]); });
}

}  // namespace

void dropout(const Dropout& d, Type type, const void* x, float* y, int64_t begin, int64_t end) {
  if (type == Type::float32) return forward(d, static_cast<const float*>(x), y, begin, end);
  forward(d, static_cast<const BFloat16*>(x), y, begin, end);
}

void dropout_add(const Dropout& d, Type type, const float* x, void* y, int64_t begin, int64_t end) {
  if (type == Type::float32) return add(d, x, static_cast<float*>(y), begin, end);
  add(d, x, static_cast<BFloat16*>(y), begin, end);
}

}  // namespace llmtk::kernels::cpu
