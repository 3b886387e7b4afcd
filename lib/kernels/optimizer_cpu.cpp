#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/optimizer_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>
#include <xmmintrin.h>

#include <algorithm>

#include "kernels/optimizer_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// Averages of rows that are hardly ever used decay into denormal numbers, which are many times slower: here they are zero.
class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }  // flush to zero, denormals are zero
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

/// A float32 parameter, or the master joined from a bfloat16 weight and its extra bits. See optimizer.h.
template <class T>
struct Master {
  T* param;
  int16_t* extra;

  template <class Access>
  HWY_INLINE V get(int64_t i, Access at) const {
    if constexpr (sizeof(T) == 4) {
      return at.get(param + i);
    } else {
      const auto high = hn::BitCast(Ints(), at.get(param + i));
      return hn::BitCast(Floats(), hn::Add(high, low(i, at)));
    }
  }

  template <class Access>
  HWY_INLINE void put(V x, int64_t i, Access at) const {
    if constexpr (sizeof(T) == 4) {
      at.put(x, param + i);
    } else {
      const Words words;
      auto bits = hn::BitCast(words, x);
      const auto nan = hn::BitCast(words, hn::VecFromMask(Floats(), hn::Ne(x, x)));
      bits = hn::IfVecThenElse(nan, hn::Set(words, 0x7FC00000), bits);  // a NaN's low bits could carry into its sign
      const auto high = hn::ShiftRight<16>(hn::Add(bits, hn::Set(words, 0x8000)));
      const auto rest = hn::Sub(bits, hn::ShiftLeft<16>(high));
      const auto high16 = hn::DemoteTo(Halves(), hn::BitCast(Ints(), high));
      const auto low16 = hn::DemoteTo(hn::Rebind<int16_t, Floats>(), hn::BitCast(Ints(), rest));
      store_halves(hn::BitCast(Halves(), high16), reinterpret_cast<uint16_t*>(param + i), at);
      store_halves(hn::BitCast(Halves(), low16), reinterpret_cast<uint16_t*>(extra + i), at);
    }
  }

 private:
  HWY_INLINE hn::Vec<Ints> low(int64_t i, Full) const {
    return hn::PromoteTo(Ints(), hn::LoadU(hn::Rebind<int16_t, Floats>(), extra + i));
  }
  HWY_INLINE hn::Vec<Ints> low(int64_t i, Part at) const {
    int16_t buffer[kLanes] = {};
    std::memcpy(buffer, extra + i, static_cast<size_t>(at.n) * 2);
    return hn::PromoteTo(Ints(), hn::LoadU(hn::Rebind<int16_t, Floats>(), buffer));
  }
  HWY_INLINE static void store_halves(hn::Vec<Halves> x, uint16_t* p, Full) { hn::StoreU(x, Halves(), p); }
  HWY_INLINE static void store_halves(hn::Vec<Halves> x, uint16_t* p, Part at) {
    uint16_t buffer[kLanes];
    hn::StoreU(x, Halves(), buffer);
    std::memcpy(p, buffer, static_cast<size_t>(at.n) * 2);
  }
};

template <class P, class G>
void adamw(const AdamWChunk& c) {
  const FlushDenormals flush;
  const Master<P> master{static_cast<P*>(c.param), c.extra};
  G* grad = static_cast<G*>(c.grad);
  float* m = c.exp_avg;
  float* v = c.exp_avg_sq;
  const V scale = set(c.grad_scale), decay = set(c.decay), one_minus_beta1 = set(c.one_minus_beta1);
  const V beta2 = set(c.beta2), one_minus_beta2 = set(c.one_minus_beta2), eps = set(c.eps);
  const V correction = set(c.inverse_correction), step_size = set(c.step_size);
  const bool zero_grad = c.zero_grad;
  sweep(c.n, [&](int64_t i, auto at) {
    const V g = hn::Mul(at.get(grad + i), scale);
    const V m_old = at.get(m + i);
    const V m_new = hn::MulAdd(one_minus_beta1, hn::Sub(g, m_old), m_old);
    const V v_new = hn::MulAdd(beta2, at.get(v + i), hn::Mul(hn::Mul(g, g), one_minus_beta2));
    const V denominator = hn::MulAdd(hn::Sqrt(v_new), correction, eps);
    const V update = hn::Div(hn::Mul(step_size, m_new), denominator);
    master.put(hn::MulSub(master.get(i, at), decay, update), i, at);
    at.put(m_new, m + i);
    at.put(v_new, v + i);
    if (zero_grad) at.put(zero(), grad + i);
  });
}

template <class P, class G>
void sgd(const SgdChunk& c) {
  const FlushDenormals flush;
  const Master<P> master{static_cast<P*>(c.param), c.extra};
  G* grad = static_cast<G*>(c.grad);
  const V scale = set(c.grad_scale), decay = set(c.weight_decay), factor = set(c.momentum_factor), lr = set(c.lr);
  sweep(c.n, [&](int64_t i, auto at) {
    const V p = master.get(i, at);
    V g = hn::MulAdd(p, decay, hn::Mul(at.get(grad + i), scale));
    if (c.momentum) {
      const V buffer = hn::MulAdd(factor, at.get(c.momentum + i), g);
      at.put(buffer, c.momentum + i);
      g = c.nesterov ? hn::MulAdd(factor, buffer, g) : buffer;
    }
    master.put(hn::NegMulAdd(lr, g, p), i, at);
    if (c.zero_grad) at.put(zero(), grad + i);
  });
}

template <class T>
double squares(const T* x, int64_t n) {
  constexpr int64_t kBlock = 4096;  // summed in float32: an error of some 1e-7
  double total = 0.0;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    total += static_cast<double>(sum_of(std::min(kBlock, n - begin), [&](int64_t i, auto at, V& sum) {
      const V value = at.get(x + begin + i);
      sum = hn::MulAdd(value, value, sum);
    }));
  }
  return total;
}

template <class T>
void add(float* dst, const T* src, int64_t n) {
  sweep(n, [&](int64_t i, auto at) { at.put(hn::Add(at.get(dst + i), at.get(src + i)), dst + i); });
}

void adamw_any(const AdamWChunk& c) {
  if (c.param_type == Type::float32)
    c.grad_type == Type::float32 ? adamw<float, float>(c) : adamw<float, BFloat16>(c);
  else
    c.grad_type == Type::float32 ? adamw<BFloat16, float>(c) : adamw<BFloat16, BFloat16>(c);
}
void sgd_any(const SgdChunk& c) {
  if (c.param_type == Type::float32)
    c.grad_type == Type::float32 ? sgd<float, float>(c) : sgd<float, BFloat16>(c);
  else
    c.grad_type == Type::float32 ? sgd<BFloat16, float>(c) : sgd<BFloat16, BFloat16>(c);
}
double squares_any(Type type, const void* x, int64_t n) {
  return type == Type::float32 ? squares(static_cast<const float*>(x), n) : squares(static_cast<const BFloat16*>(x), n);
}
void accumulate_any(float* dst, Type type, const void* src, int64_t n) {
  type == Type::float32 ? add(dst, static_cast<const float*>(src), n) : add(dst, static_cast<const BFloat16*>(src), n);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(adamw_any);
HWY_EXPORT(sgd_any);
HWY_EXPORT(squares_any);
HWY_EXPORT(accumulate_any);

namespace cpu {
void adamw(const AdamWChunk& chunk) { HWY_DYNAMIC_DISPATCH(adamw_any)(chunk); }
void sgd(const SgdChunk& chunk) { HWY_DYNAMIC_DISPATCH(sgd_any)(chunk); }
double squared_norm(Type type, const void* x, int64_t n) { return HWY_DYNAMIC_DISPATCH(squares_any)(type, x, n); }
void accumulate(float* dst, Type type, const void* src, int64_t n) {
  HWY_DYNAMIC_DISPATCH(accumulate_any)(dst, type, src, n);
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
