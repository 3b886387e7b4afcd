#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include "kernels/dropout_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

using Bits = hn::Vec<Words>;

HWY_INLINE Bits word(uint32_t x) { return hn::Set(Words(), x); }

/// SplitMix64's output function (Steele et al., Fast Splittable Pseudorandom Number Generators, 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// What one row's elements are multiplied with: 32 bits for each column by a multiply-xorshift permutation of the
/// column's number, keyed before and within.
struct Factors {
  Factors(const Dropout& d, int64_t row)
      : below(hn::Set(Ints(), static_cast<int32_t>((d.threshold - 1) ^ 0x80000000u))), scale(set(d.scale)) {
    const uint64_t key = mix(d.seed ^ mix(static_cast<uint64_t>(d.first_row + row) + 0x9E3779B97F4A7C15u));
    first = hn::Iota(Words(), static_cast<uint32_t>(key));
    second = word(static_cast<uint32_t>(key >> 32));
  }
  HWY_INLINE V operator()(int64_t column) const {
    Bits x = hn::Add(first, word(static_cast<uint32_t>(column)));
    x = hn::Mul(hn::Xor(x, hn::ShiftRight<16>(x)), word(0x7FEB352Du));
    x = hn::Mul(hn::Xor(x, hn::Xor(hn::ShiftRight<15>(x), second)), word(0x846CA68Bu));
    x = hn::Xor(x, hn::ShiftRight<16>(x));
    return hn::IfThenElseZero(hn::RebindMask(Floats(), hn::Gt(hn::BitCast(Ints(), x), below)), scale);
  }
  Bits first, second;
  hn::Vec<Ints> below;  // what is dropped, as signed numbers: they are as uniform
  V scale;
};

template <class T, class U>
void forward(const Dropout& d, const void* from, void* to, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const Factors factors(d, row);
    const T* x = static_cast<const T*>(from) + row * d.columns;
    U* y = static_cast<U*>(to) + row * d.columns;
    sweep(d.columns, [&](int64_t i, auto at) { at.put(hn::Mul(at.get(x + i), factors(i)), y + i); });
  }
}

template <class T>
void add(const Dropout& d, const float* from, void* to, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const Factors factors(d, row);
    const float* x = from + row * d.columns;
    T* y = static_cast<T*>(to) + row * d.columns;
    sweep(d.columns, [&](int64_t i, auto at) { at.put(hn::MulAdd(at.get(x + i), factors(i), at.get(y + i)), y + i); });
  }
}

void dropout_any(const Dropout& d, Type type, const void* x, float* y, int64_t begin, int64_t end) {
  type == Type::float32 ? forward<float, float>(d, x, y, begin, end) : forward<BFloat16, float>(d, x, y, begin, end);
}
void dropout_same_any(const Dropout& d, Type type, const void* x, void* y, int64_t begin, int64_t end) {
  type == Type::float32 ? forward<float, float>(d, x, y, begin, end) : forward<BFloat16, BFloat16>(d, x, y, begin, end);
}
void dropout_add_any(const Dropout& d, Type type, const float* x, void* y, int64_t begin, int64_t end) {
  type == Type::float32 ? add<float>(d, x, y, begin, end) : add<BFloat16>(d, x, y, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(dropout_any);
HWY_EXPORT(dropout_same_any);
HWY_EXPORT(dropout_add_any);

namespace cpu {
void dropout(const Dropout& d, Type type, const void* x, float* y, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(dropout_any)(d, type, x, y, begin, end);
}
void dropout_same(const Dropout& d, Type type, const void* x, void* y, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(dropout_same_any)(d, type, x, y, begin, end);
}
void dropout_add(const Dropout& d, Type type, const float* x, void* y, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(dropout_add_any)(d, type, x, y, begin, end);
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
