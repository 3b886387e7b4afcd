#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/few_rows_cpu.cpp"
#include <hwy/foreach_target.h>
//
#include <hwy/highway.h>

#include <algorithm>

#include "kernels/few_rows_impl.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace llmtk::kernels::HWY_NAMESPACE {
namespace {

/// acc[r][m] += x[m] w[r] for the vector at k of M rows of x and R rows of the weight.
template <int M, int R, class T, class Access>
HWY_INLINE void multiply(const FewRows& f, const T* w, int64_t k, Access at, V (&acc)[R][M]) {
  V weights[R];
  for (int r = 0; r < R; ++r) weights[r] = at.get(w + r * f.K + k);
  for (int m = 0; m < M; ++m) {
    const V x = at.get(f.x + m * f.K + k);
    for (int r = 0; r < R; ++r) acc[r][m] = hn::MulAdd(x, weights[r], acc[r][m]);
  }
}

/// Columns n to n + R of y: rows of the weight side by side.
template <int M, int R, class T>
void dot_products(const FewRows& f, int64_t n) {
  const T* w = static_cast<const T*>(f.weight) + n * f.K;
  V acc[R][M];
  for (int r = 0; r < R; ++r)
    for (int m = 0; m < M; ++m) acc[r][m] = zero();
  int64_t k = 0;
  for (; k + kLanes <= f.K; k += kLanes) multiply<M, R>(f, w, k, Full(), acc);
  if (k < f.K) multiply<M, R>(f, w, k, Part{f.K - k}, acc);
  for (int r = 0; r < R; ++r) {
    const Part one{1};
    const V shift = f.bias ? one.get(static_cast<const T*>(f.bias) + n + r) : zero();
    for (int m = 0; m < M; ++m)
      one.put(hn::Add(hn::SumOfLanes(Floats(), acc[r][m]), shift), static_cast<T*>(f.y) + m * f.N + n + r);
  }
}

template <int M, class T>
void by_rows(const FewRows& f, int64_t begin, int64_t end) {
  constexpr int R = M <= 2 ? 4 : M <= 4 ? 2 : 1;  // accumulators that fit in the registers
  int64_t n = begin;
  for (; n + R <= end; n += R) dot_products<M, R, T>(f, n);
  for (; n < end; ++n) dot_products<M, 1, T>(f, n);
}

/// sums[m, :] += the products of S rows of the transposed weight, from k on.
template <int M, int S, class T>
HWY_INLINE void add_rows(const FewRows& f, const T* w, int64_t k, int64_t columns, float* sums, int64_t stride) {
  V x[S][M];
  for (int s = 0; s < S; ++s)
    for (int m = 0; m < M; ++m) x[s][m] = set(f.x[m * f.K + k + s]);
  sweep(columns, [&](int64_t i, auto at) {
    V weights[S];
    for (int s = 0; s < S; ++s) weights[s] = at.get(w + (k + s) * f.N + i);
    for (int m = 0; m < M; ++m) {
      V sum = at.get(sums + m * stride + i);
      for (int s = 0; s < S; ++s) sum = hn::MulAdd(x[s][m], weights[s], sum);
      at.put(sum, sums + m * stride + i);
    }
  });
}

/// A piece of y stays in the first cache while the weight's rows go by.
template <int M, class T>
void by_columns(const FewRows& f, int64_t begin, int64_t end) {
  constexpr int64_t kPiece = 4096 / M / kLanes * kLanes;
  HWY_ALIGN float sums[M * kPiece];
  for (int64_t n = begin; n < end; n += kPiece) {
    const int64_t columns = std::min(kPiece, end - n);
    const T* w = static_cast<const T*>(f.weight) + n;
    std::fill(sums, sums + M * kPiece, 0.0f);
    constexpr int S = 4;
    int64_t k = 0;
    for (; k + S <= f.K; k += S) add_rows<M, S>(f, w, k, columns, sums, kPiece);
    for (; k < f.K; ++k) add_rows<M, 1>(f, w, k, columns, sums, kPiece);
    const T* bias = static_cast<const T*>(f.bias);
    for (int m = 0; m < M; ++m) {
      T* y = static_cast<T*>(f.y) + m * f.N + n;
      sweep(columns, [&](int64_t i, auto at) {
        const V sum = at.get(sums + m * kPiece + i);
        at.put(bias ? hn::Add(sum, at.get(bias + n + i)) : sum, y + i);
      });
    }
  }
}

template <class T, int M = 1>
void choose(const FewRows& f, int64_t begin, int64_t end) {
  if constexpr (M < FewRows::kMost)
    if (f.M > M) return choose<T, M + 1>(f, begin, end);
  f.transposed ? by_columns<M, T>(f, begin, end) : by_rows<M, T>(f, begin, end);
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
