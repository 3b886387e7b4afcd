#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/few_rows_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/few_rows_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

// A weight's row and x, as many numbers at a time as a load of the row brings. bfloat16 is widened without a shuffle: a
// load holds kLanes pairs of them, of which a shift gives the first ones and a mask the second ones; so x lies in such
// halves.

template <class T>
struct Piece;

template <>
struct Piece<float> {
  static constexpr int64_t kSize = kLanes;
  static constexpr int kVectors = 1;

  static HWY_INLINE V vector(const float* w, int) { return load(w); }
};

template <>
struct Piece<BFloat16> {
  static constexpr int64_t kSize = 2 * kLanes;
  static constexpr int kVectors = 2;

  static HWY_INLINE V vector(const BFloat16* w, int which) {
    const Words words;
    const auto pairs = hn::LoadU(words, reinterpret_cast<const uint32_t*>(w));
    return hn::BitCast(Floats(), which == 0 ? hn::ShiftLeft<16>(pairs) : hn::And(pairs, hn::Set(words, 0xFFFF0000u)));
  }
};

/// The n < kSize numbers at a row's end, with zeros behind them.
template <class T>
struct Last {
  T numbers[Piece<T>::kSize] = {};
  Last(const T* from, int64_t n) { std::memcpy(numbers, from, static_cast<size_t>(n) * sizeof(T)); }
};

/// Rows of x as pieces take them, each `stride` long and filled up with zeros.
struct Prepared {
  const float* x;
  int64_t stride;
};

template <class T>
Prepared prepare(const FewRows& f) {
  constexpr int64_t kSize = Piece<T>::kSize;
  const int64_t stride = (f.K + kSize - 1) / kSize * kSize;
  float* const rows = cpu::scratch(f.M * stride);
  for (int64_t m = 0; m < f.M; ++m) {
    const T* from = static_cast<const T*>(f.x) + m * f.K;
    float* to = rows + m * stride;
    const auto put = [&](const T* piece, int64_t k) HWY_ATTR {
      for (int v = 0; v < Piece<T>::kVectors; ++v) store(Piece<T>::vector(piece, v), to + k + v * kLanes);
    };
    int64_t k = 0;
    for (; k + kSize <= f.K; k += kSize) put(from + k, k);
    if (k < f.K) put(Last<T>(from + k, f.K - k).numbers, k);
  }
  return {rows, stride};
}

/// acc[r][m] += the products of one piece of R rows of the weight with M rows of x.
template <int M, int R, class T>
HWY_INLINE void multiply(const Prepared& p, const float* x, const T* const (&w)[R], V (&acc)[R][M]) {
  for (int v = 0; v < Piece<T>::kVectors; ++v) {
    V weights[R];
    for (int r = 0; r < R; ++r) weights[r] = Piece<T>::vector(w[r], v);
    for (int m = 0; m < M; ++m) {
      const V row = in_register(load(x + m * p.stride + v * kLanes));
      for (int r = 0; r < R; ++r) acc[r][m] = hn::MulAdd(row, weights[r], acc[r][m]);
    }
  }
}

/// y[m + i, n + r apart] of the sums over all lanes, R x M of them.
template <int M, int R, class T>
HWY_INLINE void put_sums(const FewRows& f, const V (&acc)[R][M], int64_t m, int64_t n, int64_t apart) {
  for (int r = 0; r < R; ++r) {
    const int64_t column = n + r * apart;
    const float shift = f.bias ? load_one(static_cast<const T*>(f.bias) + column) : 0.0f;
    for (int i = 0; i < M; ++i)
      store_one(hn::GetLane(hn::SumOfLanes(Floats(), acc[r][i])) + shift,
                static_cast<T*>(f.y) + (m + i) * f.N + column);
  }
}

/// Columns n, n + apart, ... (R of them) of rows m to m + M of y.
template <int M, int R, class T>
void dot_products(const FewRows& f, const Prepared& p, int64_t m, int64_t n, int64_t apart) {
  constexpr int64_t kSize = Piece<T>::kSize, kAhead = 2048 / sizeof(T), kLine = 64 / sizeof(T);
  const float* x = p.x + m * p.stride;
  const T* w[R];
  for (int r = 0; r < R; ++r) w[r] = static_cast<const T*>(f.weight) + (n + r * apart) * f.K;
  V acc[R][M];
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < M; ++i) acc[r][i] = zero();
  int64_t k = 0;
  for (; k + kSize <= f.K; k += kSize) {
    const T* piece[R];
    for (int r = 0; r < R; ++r) piece[r] = w[r] + k;
    if (k % kLine == 0)
      for (int r = 0; r < R; ++r) hwy::Prefetch(piece[r] + kAhead);
    multiply<M, R>(p, x + k, piece, acc);
  }
  if (k < f.K)
    for (int r = 0; r < R; ++r) {
      const Last<T> last(w[r] + k, f.K - k);
      for (int v = 0; v < Piece<T>::kVectors; ++v) {
        const V weights = Piece<T>::vector(last.numbers, v);
        for (int i = 0; i < M; ++i) acc[r][i] = hn::MulAdd(load(x + i * p.stride + k + v * kLanes), weights, acc[r][i]);
      }
    }
  put_sums<M, R, T>(f, acc, m, n, apart);
}

/// The M rows of x that are left, fewer than kMost of them at a time, with R rows of the weight, which stay in the
/// first cache.
template <int kMost, int R, class T>
HWY_INLINE void all_rows(const FewRows& f, const Prepared& p, int64_t n, int64_t apart) {
  int64_t m = 0;
  for (; m + kMost <= f.M; m += kMost) dot_products<kMost, R, T>(f, p, m, n, apart);
  if constexpr (kMost > 3)
    if (f.M - m == 3) dot_products<3, R, T>(f, p, m, n, apart);
  if constexpr (kMost > 2)
    if (f.M - m == 2) dot_products<2, R, T>(f, p, m, n, apart);
  if constexpr (kMost > 1)
    if (f.M - m == 1) dot_products<1, R, T>(f, p, m, n, apart);
}

/// R rows of the weight at a time, which lie far apart: several streams through memory are faster than one, and
/// processors follow them better than rows that stand side by side.
template <int kMost, int R, class T>
void streams(const FewRows& f, const Prepared& p, int64_t begin, int64_t end) {
  const int64_t apart = (end - begin) / R, rest = begin + R * apart;
  for (int64_t n = begin; n < begin + apart; ++n) all_rows<kMost, R, T>(f, p, n, apart);
  for (int64_t n = rest; n < end; ++n) all_rows<kMost, 1, T>(f, p, n, 1);
}

template <class T>
void by_rows(const FewRows& f, int64_t begin, int64_t end) {
  const Prepared p = prepare<T>(f);
  switch (f.M) {  // as many products as there are registers for their sums
    case 1:
      return streams<1, 4, T>(f, p, begin, end);
    case 2:
      return streams<2, 4, T>(f, p, begin, end);
    case 3:
      return streams<3, 3, T>(f, p, begin, end);
    default:
      return streams<4, 2, T>(f, p, begin, end);
  }
}

/// x in float32, [M, K]: as it is, or widened.
const float* wide_rows(const FewRows& f) {
  if (f.type == Type::float32) return static_cast<const float*>(f.x);
  const auto* x = static_cast<const BFloat16*>(f.x);
  float* wide = cpu::scratch(f.M * f.K);
  sweep(f.M * f.K, [&](int64_t i, auto at) { at.put(at.get(x + i), wide + i); });
  return wide;
}

/// sums[i, :] += the products of S rows of the transposed weight, from k on, with rows m to m + M of x.
template <int M, int S, class T>
HWY_INLINE void add_rows(const FewRows& f, const float* x, const T* w, int64_t k, int64_t columns, float* sums,
                         int64_t stride) {
  V factors[S][M];
  for (int s = 0; s < S; ++s)
    for (int m = 0; m < M; ++m) factors[s][m] = set(x[m * f.K + k + s]);
  sweep(columns, [&](int64_t i, auto at) {
    V weights[S];
    for (int s = 0; s < S; ++s) weights[s] = at.get(w + (k + s) * f.N + i);
    for (int m = 0; m < M; ++m) {
      V sum = at.get(sums + m * stride + i);
      for (int s = 0; s < S; ++s) sum = hn::MulAdd(factors[s][m], weights[s], sum);
      at.put(sum, sums + m * stride + i);
    }
  });
}

/// A piece of M rows of y stays in the first cache while the weight's rows go by.
template <int M, class T>
void add_piece(const FewRows& f, const float* x, int64_t m, int64_t n, int64_t columns, int64_t piece) {
  HWY_ALIGN float sums[4096];
  std::fill(sums, sums + M * piece, 0.0f);
  const T* w = static_cast<const T*>(f.weight) + n;
  constexpr int S = 4;
  int64_t k = 0;
  for (; k + S <= f.K; k += S) add_rows<M, S>(f, x + m * f.K, w, k, columns, sums, piece);
  for (; k < f.K; ++k) add_rows<M, 1>(f, x + m * f.K, w, k, columns, sums, piece);
  const T* bias = static_cast<const T*>(f.bias);
  for (int i = 0; i < M; ++i) {
    T* y = static_cast<T*>(f.y) + (m + i) * f.N + n;
    sweep(columns, [&](int64_t j, auto at) {
      const V sum = at.get(sums + i * piece + j);
      at.put(bias ? hn::Add(sum, at.get(bias + n + j)) : sum, y + j);
    });
  }
}

template <class T>
void by_columns(const FewRows& f, int64_t begin, int64_t end) {
  const float* x = wide_rows(f);
  const int64_t piece = f.M == 1 ? 4096 : f.M == 2 ? 2048 : 1024;
  for (int64_t n = begin; n < end; n += piece) {
    const int64_t columns = std::min(piece, end - n);
    for (int64_t m = 0; m < f.M;) {
      const int64_t left = f.M - m;
      if (left >= 4) {
        add_piece<4, T>(f, x, m, n, columns, piece);
        m += 4;
      } else if (left >= 2) {
        add_piece<2, T>(f, x, m, n, columns, piece);
        m += 2;
      } else {
        add_piece<1, T>(f, x, m, n, columns, piece);
        m += 1;
      }
    }
  }
}

template <class T>
void choose(const FewRows& f, int64_t begin, int64_t end) {
  f.transposed ? by_columns<T>(f, begin, end) : by_rows<T>(f, begin, end);
}

void few_rows_any(const FewRows& f, int64_t begin, int64_t end) {
  f.type == Type::float32 ? choose<float>(f, begin, end) : choose<BFloat16>(f, begin, end);
}

}  // namespace
}  // namespace llmtk::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace llmtk::kernels {
HWY_EXPORT(few_rows_any);

namespace cpu {
void few_rows(const FewRows& f, int64_t block_begin, int64_t block_end) {
  HWY_DYNAMIC_DISPATCH(few_rows_any)
  (f, block_begin * FewRows::kColumns, std::min(f.N, block_end * FewRows::kColumns));
}
}  // namespace cpu
}  // namespace llmtk::kernels
#endif
