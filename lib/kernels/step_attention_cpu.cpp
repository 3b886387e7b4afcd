#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/step_attention_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu.h"
#include "kernels/simd-inl.h"
#include "kernels/step_attention_impl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

constexpr int64_t kMostQueries = 4;  // that share each load of a key or value

template <class T>
const T* at_head(const Heads& x, int64_t b, int64_t head, int64_t t) {
  return static_cast<const T*>(x.data) + b * x.batch + head * x.head + t * x.time;
}

template <class T>
void append_plain(const StepAttention& a, const Heads& from, void* to, int64_t b, int64_t head) {
  T* held = static_cast<T*>(to) + ((b * a.K + head) * a.room + a.lengths[b]) * a.D;
  for (int64_t t = 0; t < a.T; ++t) std::copy_n(at_head<T>(from, b, head, t), a.D, held + t * a.D);
}

template <class T>
void append_int8(const StepAttention& a, const Heads& from, void* to, float* scales, int64_t b, int64_t head) {
  const int64_t place = (b * a.K + head) * a.room + a.lengths[b];
  for (int64_t t = 0; t < a.T; ++t) {
    const T* x = at_head<T>(from, b, head, t);
    int8_t* codes = static_cast<int8_t*>(to) + (place + t) * a.D;
    float* wide = cpu::scratch(a.D);
    sweep(a.D, [&](int64_t i, auto at) { at.put(at.get(x + i), wide + i); });
    float largest = 0;
    for (int64_t i = 0; i < a.D; ++i) largest = std::max(largest, std::fabs(wide[i]));
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    for (int64_t i = 0; i < a.D; ++i) codes[i] = static_cast<int8_t>(std::nearbyintf(wide[i] * inverse));
    scales[place + t] = largest / 127.0f;
  }
}

template <class T>
void append_as(const StepAttention& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const int64_t b = i / a.K, head = i % a.K;
    if (a.quantized) {
      append_int8<T>(a, a.k, a.keys, a.key_scales, b, head);
      append_int8<T>(a, a.v, a.values, a.value_scales, b, head);
    } else {
      append_plain<T>(a, a.k, a.keys, b, head);
      append_plain<T>(a, a.v, a.values, b, head);
    }
  }
}

void append_any(const StepAttention& a, int64_t begin, int64_t end) {
  a.type == Type::float32 ? append_as<float>(a, begin, end) : append_as<BFloat16>(a, begin, end);
}

/// The keys that query t of row b sees.
struct Seen {
  int64_t begin, end;
};
Seen seen_by(const StepAttention& a, int64_t b, int64_t t) {
  const int64_t end = a.lengths[b] + t + 1;
  return {a.window > 0 ? std::max<int64_t>(0, end - a.window) : 0, end};
}

/// Up to kMostQueries of one key-value head.
struct Queries {
  int64_t b, kv_head, count;
  int64_t head[kMostQueries], t[kMostQueries];
  Seen seen[kMostQueries], all;
};

/// scores[m, s - all.begin] = q[m] k[s], for all keys that some of the M queries see.
template <int M, class C>
void score(const StepAttention& a, const Queries& queries, const float* q, float* scores, int64_t stride) {
  const int64_t base = (queries.b * a.K + queries.kv_head) * a.room;
  for (int64_t s = queries.all.begin; s < queries.all.end; ++s) {
    const C* key = static_cast<const C*>(a.keys) + (base + s) * a.D;
    V sums[M];
    for (int m = 0; m < M; ++m) sums[m] = zero();
    sweep(a.D, [&](int64_t i, auto at) {
      const V k = at.get(key + i);
      for (int m = 0; m < M; ++m) sums[m] = hn::MulAdd(at.get(q + m * a.D + i), k, sums[m]);
    });
    const float factor = a.quantized ? a.scale * a.key_scales[base + s] : a.scale;
    for (int m = 0; m < M; ++m)
      scores[m * stride + s - queries.all.begin] = factor * hn::GetLane(hn::SumOfLanes(Floats(), sums[m]));
  }
}

/// In place; what the query doesn't see becomes 0. With int8 values each weight takes its value's scale.
void softmax(const StepAttention& a, const Queries& queries, int64_t m, float* scores) {
  const auto [begin, end] = queries.seen[m];
  float* seen = scores + (begin - queries.all.begin);
  const int64_t n = end - begin;
  if (a.softcap > 0) sweep(n, [&](int64_t i, auto at) { at.put(softcapped(at.get(seen + i), a.softcap), seen + i); });
  const float least = -std::numeric_limits<float>::infinity();
  const V largest = fold(
      n, set(least), [&](int64_t i, auto at, V& top) { top = hn::Max(top, at.get(seen + i, least)); },
      [](V& x, V y) { x = hn::Max(x, y); });
  const V top = hn::MaxOfLanes(Floats(), largest);
  sweep(n, [&](int64_t i, auto at) { at.put(exp(hn::Sub(at.get(seen + i), top)), seen + i); });
  const float sum = sum_of(n, [&](int64_t i, auto at, V& total) { total = hn::Add(total, at.get(seen + i)); });
  const V inverse = set(1 / sum);
  const float* scales = a.quantized ? a.value_scales + (queries.b * a.K + queries.kv_head) * a.room + begin : nullptr;
  sweep(n, [&](int64_t i, auto at) {
    const V weight = hn::Mul(at.get(seen + i), inverse);
    at.put(scales ? hn::Mul(weight, at.get(scales + i)) : weight, seen + i);
  });
  std::fill(scores, seen, 0.0f);
  std::fill(seen + n, scores + (queries.all.end - queries.all.begin), 0.0f);
}

/// sums[m] += the values of S keys from s on, weighted.
template <int M, int S, class C>
HWY_INLINE void add_values(const StepAttention& a, const C* values, const float* weights, int64_t stride, float* sums) {
  V w[S][M];
  for (int s = 0; s < S; ++s)
    for (int m = 0; m < M; ++m) w[s][m] = set(weights[m * stride + s]);
  sweep(a.D, [&](int64_t i, auto at) {
    V sum[M];
    for (int m = 0; m < M; ++m) sum[m] = at.get(sums + m * a.D + i);
    for (int s = 0; s < S; ++s) {
      const V value = at.get(values + s * a.D + i);
      for (int m = 0; m < M; ++m) sum[m] = hn::MulAdd(w[s][m], value, sum[m]);
    }
    for (int m = 0; m < M; ++m) at.put(sum[m], sums + m * a.D + i);
  });
}

template <int M, class T, class C>
void attend(const StepAttention& a, const Queries& queries) {
  const int64_t n = queries.all.end - queries.all.begin;
  float* q = cpu::scratch(M * (2 * a.D + n));
  float *sums = q + M * a.D, *scores = sums + M * a.D;
  for (int m = 0; m < M; ++m) {
    const T* from = at_head<T>(a.q, queries.b, queries.head[m], queries.t[m]);
    sweep(a.D, [&](int64_t i, auto at) { at.put(at.get(from + i), q + m * a.D + i); });
  }
  score<M, C>(a, queries, q, scores, n);
  for (int m = 0; m < M; ++m) softmax(a, queries, m, scores + m * n);
  std::fill(sums, sums + M * a.D, 0.0f);
  const int64_t first = (queries.b * a.K + queries.kv_head) * a.room + queries.all.begin;
  const C* values = static_cast<const C*>(a.values) + first * a.D;
  constexpr int S = 2;
  int64_t s = 0;
  for (; s + S <= n; s += S) add_values<M, S>(a, values + s * a.D, scores + s, n, sums);
  for (; s < n; ++s) add_values<M, 1>(a, values + s * a.D, scores + s, n, sums);
  for (int m = 0; m < M; ++m) {
    T* y = static_cast<T*>(a.y) + ((queries.b * a.T + queries.t[m]) * a.H + queries.head[m]) * a.D;
    sweep(a.D, [&](int64_t i, auto at) { at.put(at.get(sums + m * a.D + i), y + i); });
  }
}

template <class T, class C, int M = kMostQueries>
void attend_some(const StepAttention& a, const Queries& queries) {
  if constexpr (M > 1)
    if (queries.count < M) return attend_some<T, C, M - 1>(a, queries);
  attend<M, T, C>(a, queries);
}

template <class T, class C>
void step_attention_as(const StepAttention& a, int64_t begin, int64_t end) {
  const int64_t per_row = a.H / a.group, heads_per_key = a.H / a.K;
  for (int64_t piece = begin; piece < end; ++piece) {
    const int64_t b = piece / per_row, first_head = piece % per_row * a.group;
    Queries queries{.b = b, .kv_head = first_head / heads_per_key, .count = 0};
    for (int64_t i = 0; i < a.group * a.T; ++i) {
      const int64_t t = i / a.group, m = queries.count++;
      queries.head[m] = first_head + i % a.group;
      queries.t[m] = t;
      queries.seen[m] = seen_by(a, b, t);
      queries.all =
          m == 0 ? queries.seen[0] : Seen{queries.all.begin, queries.seen[m].end};  // later ones see later keys
      if (queries.count < kMostQueries && i + 1 < a.group * a.T) continue;
      attend_some<T, C>(a, queries);
      queries.count = 0;
    }
  }
}

template <class T>
void step_attention_typed(const StepAttention& a, int64_t begin, int64_t end) {
  a.quantized ? step_attention_as<T, int8_t>(a, begin, end) : step_attention_as<T, T>(a, begin, end);
}

void step_attention_any(const StepAttention& a, int64_t begin, int64_t end) {
  a.type == Type::float32 ? step_attention_typed<float>(a, begin, end) : step_attention_typed<BFloat16>(a, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(append_any);
HWY_EXPORT(step_attention_any);

namespace cpu {
void append_step(const StepAttention& a, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(append_any)(a, begin, end);
}
void step_attention(const StepAttention& a, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(step_attention_any)(a, begin, end);
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
