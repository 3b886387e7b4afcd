#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rotary_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>

#include "kernels/rotary_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// Forward: y1 = x1 c1 - x2 s1, y2 = x2 c2 + x1 s2. Its transpose: y1 = x1 c1 + x2 s2, y2 = x2 c2 - x1 s1.
template <class T, class A, bool kInverse>
HWY_INLINE void rotate_row(const T* x, T* y, const A* cos, const A* sin, int64_t half) {
  sweep(half, [&](int64_t i, auto at) {
    const V x1 = at.get(x + i), x2 = at.get(x + half + i);
    const V c1 = at.get(cos + i), c2 = at.get(cos + half + i);
    const V s1 = at.get(sin + i), s2 = at.get(sin + half + i);
    if constexpr (kInverse) {
      at.put(hn::MulAdd(x1, c1, hn::Mul(x2, s2)), y + i);
      at.put(hn::MulSub(x2, c2, hn::Mul(x1, s1)), y + half + i);
    } else {
      at.put(hn::MulSub(x1, c1, hn::Mul(x2, s1)), y + i);
      at.put(hn::MulAdd(x2, c2, hn::Mul(x1, s2)), y + half + i);
    }
  });
}

template <class T, class A, bool kInverse>
void rotate(const Rotary& r, int64_t begin, int64_t end) {
  for (int64_t position = begin; position < end; ++position) {
    const int64_t b = position / r.T, t = position % r.T;
    const int64_t angle = b * r.angle_batch + t * r.angle_time;
    const A* cos = static_cast<const A*>(r.cos) + angle;
    const A* sin = static_cast<const A*>(r.sin) + angle;
    for (int64_t h = 0; h < r.H; ++h) {
      const T* x = static_cast<const T*>(r.x) + b * r.x_batch + h * r.x_head + t * r.x_time;
      T* y = static_cast<T*>(r.y) + b * r.y_batch + h * r.y_head + t * r.y_time;
      rotate_row<T, A, kInverse>(x, y, cos, sin, r.R / 2);
      std::copy(x + r.R, x + r.D, y + r.R);
    }
  }
}

template <class T, class A>
void rotate_either(const Rotary& r, int64_t begin, int64_t end) {
  r.inverse ? rotate<T, A, true>(r, begin, end) : rotate<T, A, false>(r, begin, end);
}

void rotary_any(const Rotary& r, int64_t begin, int64_t end) {
  const bool narrow = r.type == Type::bfloat16;
  if (r.angle_type == Type::float32)
    narrow ? rotate_either<BFloat16, float>(r, begin, end) : rotate_either<float, float>(r, begin, end);
  else
    narrow ? rotate_either<BFloat16, BFloat16>(r, begin, end) : rotate_either<float, BFloat16>(r, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(rotary_any);

void cpu::rotary(const Rotary& r, int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(rotary_any)(r, begin, end); }
}  // namespace llmtk::kernels
#endif
