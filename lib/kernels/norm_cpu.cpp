#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "kernels/norm_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// y = x + residual of one row, rounded to T.
template <class T>
void add_row(const T* x, const T* residual, T* sum, int64_t H) {
  sweep(H, [&](int64_t i, auto at) { at.put(hn::Add(at.get(x + i), at.get(residual + i)), sum + i); });
}

template <class T>
void layer_norm_row(const T* x, const T* weight, const T* bias, T* y, int64_t H, float eps, float* mean, float* rstd) {
  const float m = sum_of(H, [&](int64_t i, auto at, V& sum) { sum = hn::Add(sum, at.get(x + i)); }) / H;
  const V centre = set(m);
  const float square = sum_of(H, [&](int64_t i, auto at, V& sum) {
    const V d = hn::Sub(at.get(x + i, m), centre);
    sum = hn::MulAdd(d, d, sum);
  });
  const float r = 1.0f / std::sqrt(square / H + eps);
  const V scale = set(r);
  if (bias) {
    sweep(H, [&](int64_t i, auto at) {
      const V normed = hn::Mul(hn::Sub(at.get(x + i), centre), scale);
      at.put(hn::MulAdd(normed, at.get(weight + i), at.get(bias + i)), y + i);
    });
  } else {
    sweep(H, [&](int64_t i, auto at) {
      const V normed = hn::Mul(hn::Sub(at.get(x + i), centre), scale);
      at.put(hn::Mul(normed, at.get(weight + i)), y + i);
    });
  }
  *mean = m;
  *rstd = r;
}

template <class T>
void rms_norm_row(const T* x, const T* weight, bool unit_offset, T* y, int64_t H, float eps, float* rstd) {
  const float square = sum_of(H, [&](int64_t i, auto at, V& sum) {
    const V v = at.get(x + i);
    sum = hn::MulAdd(v, v, sum);
  });
  const float r = 1.0f / std::sqrt(square / H + eps);
  const V scale = set(r);
  if (unit_offset) {
    const V one = set(1.0f);
    sweep(H, [&](int64_t i, auto at) {
      at.put(hn::Mul(hn::Mul(at.get(x + i), scale), hn::Add(one, at.get(weight + i))), y + i);
    });
  } else {
    sweep(H, [&](int64_t i, auto at) {
      const V normed = rounded_to<T>(hn::Mul(at.get(x + i), scale));
      at.put(hn::Mul(normed, at.get(weight + i)), y + i);
    });
  }
  *rstd = r;
}

template <class T>
void forward(const NormForward& n, int64_t begin, int64_t end) {
  const auto* weight = static_cast<const T*>(n.weight);
  const auto* bias = static_cast<const T*>(n.bias);
  for (int64_t row = begin; row < end; ++row) {
    const T* x = static_cast<const T*>(n.x) + row * n.H;
    T* y = static_cast<T*>(n.y) + row * n.H;
    if (n.residual) {
      T* sum = static_cast<T*>(n.sum) + row * n.H;
      add_row(x, static_cast<const T*>(n.residual) + row * n.H, sum, n.H);
      x = sum;
    }
    if (n.rms)
      rms_norm_row(x, weight, n.unit_offset, y, n.H, n.eps, n.rstd + row);
    else
      layer_norm_row(x, weight, bias, y, n.H, n.eps, n.mean + row, n.rstd + row);
  }
}

/// With g = dy * weight and xh the normalised row: dx = rstd * (g - mean(g) - xh * mean(g * xh)); RMSNorm lacks mean(g).
template <class T, bool kParts, bool kBias>
void backward_row(const NormBackward& n, int64_t row, float* dweight, float* dbias) {
  struct Sums {
    V g, gx;
  };
  const T* dy = static_cast<const T*>(n.dy) + row * n.H;
  const T* x = static_cast<const T*>(n.x) + row * n.H;
  const T* weight = static_cast<const T*>(n.weight);
  const T* dsum = n.dsum ? static_cast<const T*>(n.dsum) + row * n.H : nullptr;
  T* dx = static_cast<T*>(n.dx) + row * n.H;
  const V centre = set(n.rms ? 0.0f : n.mean[row]);
  const V scale = set(n.rstd[row]);
  const V offset = set(n.unit_offset ? 1.0f : 0.0f);
  const Sums sums = fold(
      n.H, Sums{zero(), zero()},
      [&](int64_t i, auto at, Sums& s) {
        const V d = at.get(dy + i);
        const V normed = hn::Mul(hn::Sub(at.get(x + i), centre), scale);
        const V g = hn::Mul(d, hn::Add(offset, at.get(weight + i)));
        s.g = hn::Add(s.g, g);
        s.gx = hn::MulAdd(g, normed, s.gx);
        if constexpr (kParts) at.put(hn::MulAdd(d, normed, at.get(dweight + i)), dweight + i);
        if constexpr (kBias) at.put(hn::Add(d, at.get(dbias + i)), dbias + i);
      },
      [](Sums& a, const Sums& b) {
        a.g = hn::Add(a.g, b.g);
        a.gx = hn::Add(a.gx, b.gx);
      });
  const V mean_g = set(n.rms ? 0.0f : hn::GetLane(hn::SumOfLanes(Floats(), sums.g)) / n.H);
  const V mean_gx = set(hn::GetLane(hn::SumOfLanes(Floats(), sums.gx)) / n.H);
  sweep(n.H, [&](int64_t i, auto at) {
    const V normed = hn::Mul(hn::Sub(at.get(x + i), centre), scale);
    const V g = hn::Sub(hn::Mul(at.get(dy + i), hn::Add(offset, at.get(weight + i))), mean_g);
    V out = hn::Mul(scale, hn::NegMulAdd(normed, mean_gx, g));
    if (dsum) out = hn::Add(out, at.get(dsum + i));
    at.put(out, dx + i);
  });
}

template <class T>
void backward(const NormBackward& n, int64_t slice_begin, int64_t slice_end) {
  const int64_t per_slice = (n.rows + n.slices - 1) / n.slices;
  for (int64_t slice = slice_begin; slice < slice_end; ++slice) {
    float* dweight = n.dweight_parts ? n.dweight_parts + slice * n.H : nullptr;
    float* dbias = n.dbias_parts ? n.dbias_parts + slice * n.H : nullptr;
    if (dweight) std::fill_n(dweight, n.H, 0.0f);
    if (dbias) std::fill_n(dbias, n.H, 0.0f);
    const int64_t end = std::min(n.rows, (slice + 1) * per_slice);
    for (int64_t row = slice * per_slice; row < end; ++row) {
      if (dweight && dbias)
        backward_row<T, true, true>(n, row, dweight, dbias);
      else if (dweight)
        backward_row<T, true, false>(n, row, dweight, dbias);
      else if (dbias)
        backward_row<T, false, true>(n, row, dweight, dbias);
      else
        backward_row<T, false, false>(n, row, dweight, dbias);
    }
  }
}

template <class T>
void reduce(const float* parts, int64_t slices, int64_t H, T* out) {
  sweep(H, [&](int64_t i, auto at) {
    V sum = zero();
    for (int64_t s = 0; s < slices; ++s) sum = hn::Add(sum, at.get(parts + s * H + i));
    at.put(sum, out + i);
  });
}

void norm_forward_any(const NormForward& n, int64_t begin, int64_t end) {
  n.type == Type::float32 ? forward<float>(n, begin, end) : forward<BFloat16>(n, begin, end);
}
void norm_backward_any(const NormBackward& n, int64_t begin, int64_t end) {
  n.type == Type::float32 ? backward<float>(n, begin, end) : backward<BFloat16>(n, begin, end);
}
void norm_reduce_any(const float* parts, int64_t slices, int64_t H, Type type, void* out) {
  type == Type::float32 ? reduce(parts, slices, H, static_cast<float*>(out))
                        : reduce(parts, slices, H, static_cast<BFloat16*>(out));
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(norm_forward_any);
HWY_EXPORT(norm_backward_any);
HWY_EXPORT(norm_reduce_any);

namespace cpu {
void norm_forward(const NormForward& n, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(norm_forward_any)(n, begin, end);
}
void norm_backward(const NormBackward& n, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(norm_backward_any)(n, begin, end);
}
void norm_reduce(const float* parts, int64_t slices, int64_t H, Type type, void* out) {
  HWY_DYNAMIC_DISPATCH(norm_reduce_any)(parts, slices, H, type, out);
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
