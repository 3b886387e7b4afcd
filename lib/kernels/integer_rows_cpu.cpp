#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/integer_rows_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/cpu.h"
#include "kernels/integer-inl.h"
#include "kernels/integer_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// x / scale in whole numbers: the row's scale is its largest absolute value / 127.5.
float round_row(float* x, int64_t K) {
  const V most = fold(
      K, zero(), [&](int64_t i, auto at, V& top) { top = hn::Max(top, hn::Abs(at.get(x + i))); },
      [](V& a, V b) { a = hn::Max(a, b); });
  float scale = hn::GetLane(hn::MaxOfLanes(Floats(), most)) / 127.5f;
  if (scale == 0) scale = 0x1p-23f;
  sweep(K, [&](int64_t i, auto at) {
    const V place = hn::Div(at.get(x + i), set(scale));
    at.put(hn::Round(hn::Min(hn::Max(place, set(-128.0f)), set(127.0f))), x + i);
  });
  return scale;
}

HWY_INLINE auto as_bytes(V x) { return hn::DemoteTo(hn::Rebind<int8_t, Floats>(), hn::ConvertTo(Ints(), x)); }

/// Each `apart`-th number: kLanes of them.
HWY_INLINE V every(const float* x, int apart) {
  return hn::GatherIndex(Floats(), x, hn::Mul(hn::Iota(Ints(), 0), hn::Set(Ints(), apart)));
}

/// Codes of four bits are eight numbers per lane, each 8 too large; in floats vector j holds the number j of every
/// lane, divided by what the code j of a word is too large by where it lies (the last one is shifted); in bytes stand
/// the first numbers of all pairs and then the second ones.
void lay_out_nibbles(const IntegerFewRows& f, const float* x, const Prepared& to) {
  for (int64_t unit = 0; unit < own_units(f.K); ++unit) {
    const float* from = x + unit * kUnit;
    V sum = zero();
    for (int j = 0; j < 8; ++j) {
      const V numbers = every(from + j, 8);
      sum = hn::Add(sum, numbers);
      if (!f.dynamic)
        store(hn::Mul(numbers, set(j == 7 ? 1.0f : 1.0f / static_cast<float>(1 << (4 * j)))),
              to.x + unit * kUnit + j * kLanes);
    }
    const V start = hn::Mul(sum, set(-8.0f));
    if (!f.dynamic) {
      store(start, to.starts + unit * kLanes);
      continue;
    }
    hn::StoreU(hn::ConvertTo(Ints(), start), Ints(), reinterpret_cast<int32_t*>(to.starts) + unit * kLanes);
    auto* bytes = reinterpret_cast<int8_t*>(to.x) + unit * kUnit;
    for (int64_t k = 0; k < kUnit; k += 2 * kLanes) {
      V first, second;
      hn::LoadInterleaved2(Floats(), from + k, first, second);
      hn::StoreU(as_bytes(first), hn::Rebind<int8_t, Floats>(), bytes + k / 2);
      hn::StoreU(as_bytes(second), hn::Rebind<int8_t, Floats>(), bytes + kUnit / 2 + k / 2);
    }
  }
}

/// Codes of eight bits meet x in floats, or in shorts, so that no product of two of -128 is too large.
void lay_out_bytes(const IntegerFewRows& f, const float* x, const Prepared& to) {
  const int64_t n = own_units(f.K) * kUnit;
  if (!f.dynamic) return void(std::copy(x, x + n, to.x));
  const hn::Rebind<int16_t, Floats> shorts;
  for (int64_t k = 0; k < n; k += kLanes)
    hn::StoreU(hn::DemoteTo(shorts, hn::ConvertTo(Ints(), load(x + k))), shorts, reinterpret_cast<int16_t*>(to.x) + k);
}

template <class T>
void prepare_row(const IntegerFewRows& f, int64_t m) {
  const T* from = static_cast<const T*>(f.x) + m * f.K;
  float* x = cpu::scratch(f.padded());
  sweep(f.K, [&](int64_t i, auto at) { at.put(at.get(from + i), x + i); });
  std::fill(x + f.K, x + f.padded(), 0.0f);
  const Prepared to = prepared_row(f, m);
  *to.scale = f.dynamic ? round_row(x, f.K) : 1.0f;
  f.bits == 4 ? lay_out_nibbles(f, x, to) : lay_out_bytes(f, x, to);
  if (!f.zero_points) return;
  for (int64_t g = 0; g < f.groups(); ++g)
    to.group_sums[g] =
        sum_of(f.group, [&](int64_t i, auto at, V& sum) { sum = hn::Add(sum, at.get(x + g * f.group + i)); });
}

void prepare_any(const IntegerFewRows& f, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m)
    f.type == Type::float32 ? prepare_row<float>(f, m) : prepare_row<BFloat16>(f, m);
}

int code_at(const IntegerWeights& w, int64_t n, int64_t k) {
  const uint8_t* row = static_cast<const uint8_t*>(w.codes) + n * w.row_bytes;
  if (w.bits == 4) return (row[k / 2] >> (4 * (k % 2)) & 15) - 8;
  return w.offset ? row[k] - 128 : static_cast<int8_t>(row[k]);
}

template <class T>
void lookup_row(const IntegerWeights& w, int64_t n, T* y) {
  for (int64_t g = 0; g < w.groups(); ++g) {
    const int64_t i = n * w.groups() + g;
    const float scale = scale_at(w, i);
    const int zero_point = w.zero_points ? w.zero_points[i] : 0;
    for (int64_t k = g * w.group; k < (g + 1) * w.group; ++k)
      store_one(static_cast<float>(code_at(w, n, k) - zero_point) * scale, y + k);
  }
}

void lookup_any(const IntegerLookup& l, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    if (l.ids[i] < 0 || l.ids[i] >= l.weights.N) std::abort();
    const int64_t at = i * l.weights.K;
    l.type == Type::float32 ? lookup_row(l.weights, l.ids[i], static_cast<float*>(l.y) + at)
                            : lookup_row(l.weights, l.ids[i], static_cast<BFloat16*>(l.y) + at);
  }
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(prepare_any);
HWY_EXPORT(lookup_any);

namespace cpu {
void integer_prepare(const IntegerFewRows& f, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(prepare_any)(f, begin, end);
}
void integer_lookup(const IntegerLookup& l, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(lookup_any)(l, begin, end);
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
