#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include "kernels/activation_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// An activation's value and derivative at x.
struct Point {
  V value, slope;
};

struct Silu {
  static HWY_INLINE V value(V x) { return hn::Mul(x, sigmoid(x)); }
  static HWY_INLINE Point point(V x) {
    const V s = sigmoid(x);
    const V y = hn::Mul(x, s);
    return {y, hn::MulAdd(y, hn::Sub(set(1.0f), s), s)};
  }
};

/// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
struct GeluTanh {
  static constexpr float kTwoRoot = 1.5957691216f;  // 2 sqrt(2/pi)
  static constexpr float kCube = 0.044715f;
  static HWY_INLINE V gate(V x, V square) {
    return sigmoid(hn::Mul(hn::Mul(x, set(kTwoRoot)), hn::MulAdd(square, set(kCube), set(1.0f))));
  }
  static HWY_INLINE V value(V x) { return hn::Mul(x, gate(x, hn::Mul(x, x))); }
  static HWY_INLINE Point point(V x) {
    const V square = hn::Mul(x, x);
    const V s = gate(x, square);
    const V y = hn::Mul(x, s);
    const V slope_of_argument = hn::MulAdd(square, set(3.0f * kCube * kTwoRoot), set(kTwoRoot));
    return {y, hn::MulAdd(hn::Mul(y, hn::Sub(set(1.0f), s)), slope_of_argument, s)};
  }
};

/// x Phi(x). With z = |x| / sqrt(2) and t = 1 / (1 + 0.35 z): erfc(z) = e^(-z^2) t P(t), P fitted on z in [0, 9.2] to a
/// relative error of 8e-7 (absolute 1e-9 of erfc).
struct Gelu {
  static HWY_INLINE V tail(V x, V bell) {  // Phi(-|x|); bell = e^(-x^2 / 2)
    const V z = hn::Mul(hn::Abs(x), set(0.707106781f));
    const V t = hn::Div(set(1.0f), hn::MulAdd(z, set(0.35f), set(1.0f)));
    V p = hn::MulAdd(set(0.0691882266f), t, set(-0.409338358f));
    p = hn::MulAdd(p, t, set(0.84629838f));
    p = hn::MulAdd(p, t, set(-0.72522885f));
    p = hn::MulAdd(p, t, set(0.636675798f));
    p = hn::MulAdd(p, t, set(-0.0409460103f));
    p = hn::MulAdd(p, t, set(0.234805865f));
    p = hn::MulAdd(p, t, set(0.190680023f));
    p = hn::MulAdd(p, t, set(0.197864926f));
    return hn::Mul(hn::Mul(set(0.5f), bell), hn::Mul(p, t));
  }
  static HWY_INLINE V bell(V x) { return exp(hn::Mul(hn::Mul(x, x), set(-0.5f))); }
  static HWY_INLINE V phi(V x, V bell) {
    const V low = tail(x, bell);
    return hn::IfThenElse(hn::Lt(x, zero()), low, hn::Sub(set(1.0f), low));
  }
  static HWY_INLINE V value(V x) { return hn::Mul(x, phi(x, bell(x))); }
  static HWY_INLINE Point point(V x) {
    const V b = bell(x);
    const V p = phi(x, b);
    return {hn::Mul(x, p), hn::MulAdd(hn::Mul(x, set(0.398942280f)), b, p)};
  }
};

template <class T, class A>
void forward(const ActivationForward& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
    T* y = static_cast<T*>(a.y) + row * a.columns;
    if (a.up) {
      const T* up = static_cast<const T*>(a.up) + row * a.up_stride;
      sweep(a.columns,
            [&](int64_t i, auto at) { at.put(hn::Mul(A::value(at.get(x + i)), at.get(up + i)), y + i); });
    } else {
      sweep(a.columns, [&](int64_t i, auto at) { at.put(A::value(at.get(x + i)), y + i); });
    }
  }
}

template <class T, class A>
void backward(const ActivationBackward& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
    const T* dy = static_cast<const T*>(a.dy) + row * a.columns;
    T* dx = static_cast<T*>(a.dx) + row * a.columns;
    if (a.up) {
      const T* up = static_cast<const T*>(a.up) + row * a.up_stride;
      T* dup = static_cast<T*>(a.dup) + row * a.columns;
      sweep(a.columns, [&](int64_t i, auto at) {
        const Point point = A::point(at.get(x + i));
        const V d = at.get(dy + i);
        at.put(hn::Mul(hn::Mul(d, at.get(up + i)), point.slope), dx + i);
        at.put(hn::Mul(d, point.value), dup + i);
      });
    } else {
      sweep(a.columns,
            [&](int64_t i, auto at) { at.put(hn::Mul(at.get(dy + i), A::point(at.get(x + i)).slope), dx + i); });
    }
  }
}

template <class A>
void forward_typed(const ActivationForward& a, int64_t begin, int64_t end) {
  a.type == Type::float32 ? forward<float, A>(a, begin, end) : forward<BFloat16, A>(a, begin, end);
}
template <class A>
void backward_typed(const ActivationBackward& a, int64_t begin, int64_t end) {
  a.type == Type::float32 ? backward<float, A>(a, begin, end) : backward<BFloat16, A>(a, begin, end);
}

void activation_forward_any(const ActivationForward& a, int64_t begin, int64_t end) {
  switch (a.activation) {
    case Activation::gelu: return forward_typed<Gelu>(a, begin, end);
    case Activation::gelu_tanh: return forward_typed<GeluTanh>(a, begin, end);
    case Activation::silu: return forward_typed<Silu>(a, begin, end);
  }
}
void activation_backward_any(const ActivationBackward& a, int64_t begin, int64_t end) {
  switch (a.activation) {
    case Activation::gelu: return backward_typed<Gelu>(a, begin, end);
    case Activation::gelu_tanh: return backward_typed<GeluTanh>(a, begin, end);
    case Activation::silu: return backward_typed<Silu>(a, begin, end);
  }
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(activation_forward_any);
HWY_EXPORT(activation_backward_any);

namespace cpu {
void activation_forward(const ActivationForward& a, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(activation_forward_any)(a, begin, end);
}
void activation_backward(const ActivationBackward& a, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(activation_backward_any)(a, begin, end);
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
