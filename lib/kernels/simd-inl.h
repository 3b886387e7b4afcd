// What the *_cpu.cpp files share, compiled once per instruction set (Highway's foreach_target): vectors of float that are
// loaded from and stored to float32 or bfloat16, sums, and exp. No include guard in the usual sense, see Highway.

#if defined(LLMTK_KERNELS_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef LLMTK_KERNELS_SIMD_INL_H
#undef LLMTK_KERNELS_SIMD_INL_H
#else
#define LLMTK_KERNELS_SIMD_INL_H
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "kernels/types.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using Floats = hn::ScalableTag<float>;
using Ints = hn::RebindToSigned<Floats>;
using Words = hn::RebindToUnsigned<Floats>;
using Halves = hn::Rebind<uint16_t, Floats>;
using V = hn::Vec<Floats>;
inline constexpr int64_t kLanes = HWY_MAX_BYTES / 4;

HWY_INLINE V set(float x) { return hn::Set(Floats(), x); }
HWY_INLINE V zero() { return hn::Zero(Floats()); }

HWY_INLINE V load(const float* p) { return hn::LoadU(Floats(), p); }
HWY_INLINE void store(V x, float* p) { hn::StoreU(x, Floats(), p); }

HWY_INLINE V load(const BFloat16* p) {
  const auto bits = hn::LoadU(Halves(), reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(Words(), bits)));
}

HWY_INLINE V load(const int8_t* p) {
  return hn::ConvertTo(Floats(), hn::PromoteTo(Ints(), hn::LoadU(hn::Rebind<int8_t, Floats>(), p)));
}

/// Rounds to nearest, ties to even; NaN stays NaN.
HWY_INLINE void store(V x, BFloat16* p) {
  const Words words;
  const auto bits = hn::BitCast(words, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(words, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(words, 0x7FFF))));
  const auto nan = hn::BitCast(words, hn::VecFromMask(Floats(), hn::Ne(x, x)));
  const auto safe = hn::IfVecThenElse(nan, hn::Set(words, 0x7FC0), rounded);
  hn::StoreU(hn::DemoteTo(Halves(), hn::BitCast(Ints(), safe)), Halves(), reinterpret_cast<uint16_t*>(p));
}

/// Of one number.
HWY_INLINE float load_one(const float* p) { return *p; }
HWY_INLINE float load_one(const BFloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
HWY_INLINE void store_one(float x, float* p) { *p = x; }
HWY_INLINE void store_one(float x, BFloat16* p) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  p->bits = static_cast<uint16_t>(x != x ? 0x7FC0 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/// Keeps the compiler from loading x from memory again wherever it is used: loads are scarcer than registers.
template <class Vector>
HWY_INLINE Vector in_register(Vector x) {
  asm("" : "+x"(x.raw));
  return x;
}

/// x as a store to T and a load back would leave it.
template <class T>
HWY_INLINE V rounded_to(V x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else {
    T buffer[kLanes];
    store(x, buffer);
    return load(buffer);
  }
}

/// Access to a whole vector, and to the n < kLanes elements at a row's end (missing ones read as `fill`).
struct Full {
  template <class T>
  HWY_INLINE V get(const T* p, float = 0.0f) const {
    return load(p);
  }
  template <class T>
  HWY_INLINE void put(V x, T* p) const {
    store(x, p);
  }
};
struct Part {
  int64_t n;
  template <class T>
  HWY_INLINE V get(const T* p, float fill = 0.0f) const {
    T buffer[kLanes] = {};
    std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(T));
    const V x = load(buffer);
    return fill == 0.0f ? x : hn::IfThenElse(hn::FirstN(Floats(), static_cast<size_t>(n)), x, set(fill));
  }
  template <class T>
  HWY_INLINE void put(V x, T* p) const {
    T buffer[kLanes];
    store(x, buffer);
    std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(T));
  }
};

/// f(i, access) for every vector of [0, n).
template <class F>
HWY_INLINE void sweep(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    f(i, Full());
    f(i + kLanes, Full());
  }
  for (; i + kLanes <= n; i += kLanes) f(i, Full());
  if (i < n) f(i, Part{n - i});
}

/// As sweep, with f(i, access, sum&) adding into one of four accumulators (a chain of additions would wait for itself);
/// `join(a, b)` merges them.
template <class Sum, class F, class Join>
HWY_INLINE Sum fold(int64_t n, Sum start, F&& f, Join&& join) {
  Sum a = start, b = start, c = start, d = start;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    f(i, Full(), a);
    f(i + kLanes, Full(), b);
    f(i + 2 * kLanes, Full(), c);
    f(i + 3 * kLanes, Full(), d);
  }
  for (; i + kLanes <= n; i += kLanes) f(i, Full(), a);
  if (i < n) f(i, Part{n - i}, b);
  join(a, b);
  join(c, d);
  join(a, c);
  return a;
}

template <class F>
HWY_INLINE float sum_of(int64_t n, F&& f) {
  const V total = fold(n, zero(), f, [](V& a, V b) { a = hn::Add(a, b); });
  return hn::GetLane(hn::SumOfLanes(Floats(), total));
}

/// e^x with a relative error of 2e-7 between -87.3 and 88.3, saturating outside; NaN stays NaN.
HWY_INLINE V exp(V x) {
  // The operand order matters: with a NaN, x86 gives the second operand back.
  x = hn::Min(set(88.3762626f), x);
  x = hn::Max(set(-87.3365447f), x);
  const V n = hn::Round(hn::Mul(x, set(1.44269504f)));
  V r = hn::NegMulAdd(n, set(0.693145752f), x);  // ln 2 in two parts
  r = hn::NegMulAdd(n, set(1.42860677e-6f), r);
  V q = hn::MulAdd(set(0.00139337332f), r, set(0.00836323538f));
  q = hn::MulAdd(q, r, set(0.0416664642f));
  q = hn::MulAdd(q, r, set(0.166665766f));
  q = hn::MulAdd(q, r, set(0.500000001f));
  const V y = hn::Add(hn::MulAdd(q, hn::Mul(r, r), r), set(1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(Ints(), n), hn::Set(Ints(), 127)));
  return hn::Mul(y, hn::BitCast(Floats(), exponent));
}

/// 1 / (1 + e^-x)
HWY_INLINE V sigmoid(V x) { return hn::Div(set(1.0f), hn::Add(set(1.0f), exp(hn::Neg(x)))); }

/// cap tanh(x / cap), with an absolute error of 1e-7 cap.
HWY_INLINE V softcapped(V x, float cap) {
  const V grown = exp(hn::Mul(x, set(2 / cap)));
  return hn::Mul(set(cap), hn::Sub(set(1.0f), hn::Div(set(2.0f), hn::Add(grown, set(1.0f)))));
}

}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
