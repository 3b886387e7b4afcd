#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/few_rows_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/few_rows_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// Memory of this thread's that only ever grows.
float* scratch(int64_t size) {
  static thread_local std::vector<float> buffer;
  if (buffer.size() < static_cast<size_t>(size)) buffer.resize(static_cast<size_t>(size));
  return buffer.data();
}

// A weight's row and x, as many numbers at a time as a load of the row brings. bfloat16 is widened without a shuffle: a
// load holds kLanes pairs of them, of which a shift gives the first ones and a mask the second ones; so x lies in such
// halves.

template <class T>
struct Piece;

template <>
struct Piece<float> {
  static constexpr int64_t kSize = kLanes;
  static constexpr int kVectors = 1;

  template <class Access>
  static HWY_INLINE void load(const float* w, Access at, V (&out)[1]) {
    out[0] = at.get(w);
  }
};

template <>
struct Piece<BFloat16> {
  static constexpr int64_t kSize = 2 * kLanes;
  static constexpr int kVectors = 2;

  static HWY_INLINE void load(const BFloat16* w, Full, V (&out)[2]) {
    const Words words;
    const auto pairs = hn::LoadU(words, reinterpret_cast<const uint32_t*>(w));
    out[0] = hn::BitCast(Floats(), hn::ShiftLeft<16>(pairs));
    out[1] = hn::BitCast(Floats(), hn::And(pairs, hn::Set(words, 0xFFFF0000u)));
  }
  static HWY_INLINE void load(const BFloat16* w, Part part, V (&out)[2]) {
    BFloat16 buffer[kSize] = {};
    std::memcpy(buffer, w, static_cast<size_t>(part.n) * sizeof(BFloat16));
    load(buffer, Full(), out);
  }
};

/// Rows of x as pieces take them, each `stride` long and filled up with zeros; and memory for kBlock rows of the
/// weight.
struct Prepared {
  const float* x;
  int64_t stride;
  float* spare;
};
constexpr int64_t kBlock = 3;

/// A row of pieces: as it is, or widened, where it ends filled up with zeros.
template <class T>
HWY_INLINE void widen_row(const T* row, int64_t K, float* to) {
  constexpr int64_t kSize = Piece<T>::kSize, kAhead = 2048 / sizeof(T);
  V piece[Piece<T>::kVectors];
  int64_t k = 0;
  for (; k + kSize <= K; k += kSize) {
    hwy::Prefetch(row + k + kAhead);
    Piece<T>::load(row + k, Full(), piece);
    for (int v = 0; v < Piece<T>::kVectors; ++v) store(piece[v], to + k + v * kLanes);
  }
  if (k == K) return;
  Piece<T>::load(row + k, Part{K - k}, piece);
  for (int v = 0; v < Piece<T>::kVectors; ++v) store(piece[v], to + k + v * kLanes);
}

template <class T>
Prepared prepare(const FewRows& f) {
  constexpr int64_t kSize = Piece<T>::kSize;
  const int64_t stride = (f.K + kSize - 1) / kSize * kSize;
  float* const rows = scratch((f.M + kBlock) * stride);
  for (int64_t m = 0; m < f.M; ++m) widen_row(static_cast<const T*>(f.x) + m * f.K, f.K, rows + m * stride);
  return {rows, stride, rows + f.M * stride};
}

/// y[m + i, n + r apart] of the sums over all lanes, R x M of them.
template <int M, int R, class T>
HWY_INLINE void put_sums(const FewRows& f, const V (&acc)[R][M], int64_t m, int64_t n, int64_t apart) {
  float sums[(R * M + kLanes - 1) / kLanes * kLanes] = {};
  for (int r = 0; r < R; ++r) {
    const float shift = f.bias ? hn::GetLane(Part{1}.get(static_cast<const T*>(f.bias) + n + r * apart)) : 0.0f;
    for (int i = 0; i < M; ++i) sums[r * M + i] = hn::GetLane(hn::SumOfLanes(Floats(), acc[r][i])) + shift;
  }
  T rounded[std::size(sums)];
  for (size_t i = 0; i < std::size(sums); i += kLanes) store(load(sums + i), rounded + i);
  T* y = static_cast<T*>(f.y) + m * f.N + n;
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < M; ++i) y[i * f.N + r * apart] = rounded[r * M + i];
}

/// acc[r][m] += the products of one piece of R rows of the weight with M rows of x.
template <int M, int R, class T, class Access>
HWY_INLINE void multiply(const Prepared& p, const float* x, const T* w, int64_t distance, Access at, V (&acc)[R][M]) {
  constexpr int kVectors = Piece<T>::kVectors;
  V weights[R][kVectors];
  for (int r = 0; r < R; ++r) Piece<T>::load(w + r * distance, at, weights[r]);
  for (int v = 0; v < kVectors; ++v)
    for (int m = 0; m < M; ++m) {
      const V row = load(x + m * p.stride + v * kLanes);
      for (int r = 0; r < R; ++r) acc[r][m] = hn::MulAdd(row, weights[r][v], acc[r][m]);
    }
}

/// Columns n, n + apart, ... (R of them) of rows m to m + M of y.
template <int M, int R, class T>
void dot_products(const FewRows& f, const Prepared& p, int64_t m, int64_t n, int64_t apart) {
  constexpr int64_t kSize = Piece<T>::kSize, kAhead = 2048 / sizeof(T), kLine = 64 / sizeof(T);
  const T* w = static_cast<const T*>(f.weight) + n * f.K;
  const float* x = p.x + m * p.stride;
  const int64_t distance = apart * f.K;
  V acc[R][M];
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < M; ++i) acc[r][i] = zero();
  int64_t k = 0;
  for (; k + kSize <= f.K; k += kSize) {
    if (k % kLine == 0)
      for (int r = 0; r < R; ++r) hwy::Prefetch(w + r * distance + k + kAhead);
    multiply<M, R>(p, x + k, w + k, distance, Full(), acc);
  }
  if (k < f.K) multiply<M, R>(p, x + k, w + k, distance, Part{f.K - k}, acc);
  put_sums<M, R, T>(f, acc, m, n, apart);
}

/// All M rows of x and R of the weight at a time. Those R lie far apart: several streams through memory are faster than
/// one, and processors follow them better than rows that stand side by side.
template <int M, int R, class T>
void streams(const FewRows& f, const Prepared& p, int64_t begin, int64_t end) {
  const int64_t apart = (end - begin) / R, rest = begin + R * apart;
  for (int64_t n = begin; n < begin + apart; ++n) dot_products<M, R, T>(f, p, 0, n, apart);
  for (int64_t n = rest; n < end; ++n) dot_products<M, 1, T>(f, p, 0, n, 1);
}

/// Columns n to n + R of rows m to m + M of y; w: R rows of the weight, widened, in pieces.
template <int M, int R, class T>
void block(const FewRows& f, const Prepared& p, const float* w, int64_t m, int64_t n) {
  const float* x = p.x + m * p.stride;
  V acc[R][M];
  for (int r = 0; r < R; ++r)
    for (int i = 0; i < M; ++i) acc[r][i] = zero();
  for (int64_t k = 0; k < p.stride; k += kLanes) {
    V weights[R];
    for (int r = 0; r < R; ++r) weights[r] = load(w + r * p.stride + k);
    for (int i = 0; i < M; ++i) {
      const V row = load(x + i * p.stride + k);
      for (int r = 0; r < R; ++r) acc[r][i] = hn::MulAdd(row, weights[r], acc[r][i]);
    }
  }
  put_sums<M, R, T>(f, acc, m, n, 1);
}

template <int M, int R, class T>
void all_rows(const FewRows& f, const Prepared& p, const float* w, int64_t n) {
  int64_t m = 0;
  for (; m + M <= f.M; m += M) block<M, R, T>(f, p, w, m, n);
  for (; m < f.M; ++m) block<1, R, T>(f, p, w, m, n);
}

/// More rows than are read at the memory's speed: some of the weight's rows are widened into the first cache, and every
/// row of x meets them there.
template <class T>
void blocks(const FewRows& f, const Prepared& p, int64_t begin, int64_t end) {
  for (int64_t n = begin; n < end; n += kBlock) {
    const int64_t rows = std::min(kBlock, end - n);
    const T* w = static_cast<const T*>(f.weight) + n * f.K;
    const float* wide = p.spare;
    if (sizeof(T) == sizeof(float) && f.K == p.stride)
      wide = static_cast<const float*>(f.weight) + n * f.K;
    else
      for (int64_t r = 0; r < rows; ++r) widen_row(w + r * f.K, f.K, p.spare + r * p.stride);
    if (rows == kBlock)
      all_rows<4, kBlock, T>(f, p, wide, n);
    else
      for (int64_t r = 0; r < rows; ++r) all_rows<4, 1, T>(f, p, wide + r * p.stride, n + r);
  }
}

template <class T>
void by_rows(const FewRows& f, int64_t begin, int64_t end) {
  const Prepared p = prepare<T>(f);
  if (f.M == 1) return streams<1, 4, T>(f, p, begin, end);
  f.M == 2 ? streams<2, 4, T>(f, p, begin, end) : blocks<T>(f, p, begin, end);
}

/// x in float32, [M, K]: as it is, or widened.
const float* wide_rows(const FewRows& f) {
  if (f.type == Type::float32) return static_cast<const float*>(f.x);
  const auto* x = static_cast<const BFloat16*>(f.x);
  float* wide = scratch(f.M * f.K);
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
