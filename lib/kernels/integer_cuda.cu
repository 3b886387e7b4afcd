#include "kernels/device.cuh"
#include "kernels/integer_impl.h"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kWarps = 4;           // columns of y per block, one per warp
constexpr int kRounding = 256;      // threads that round a row
constexpr int kMostTogether = 8;    // rows of x that share each load of codes

/// A rounded row as the products take it: its scale, and then its codes.
struct RoundedRow {
  float* scale;
  int8_t* codes;
};
__device__ RoundedRow rounded_row(const IntegerFewRows& f, int64_t m) {
  float* row = f.prepared + m * (1 + (f.K + 3) / 4);
  return {row, reinterpret_cast<int8_t*>(row + 1)};
}

/// Row blockIdx.x of x in whole numbers: its scale is its largest absolute value / 127.5.
template <class T>
__global__ void __launch_bounds__(kRounding) round_rows(IntegerFewRows f) {
  __shared__ float tops[kRounding];
  const T* x = static_cast<const T*>(f.x) + blockIdx.x * f.K;
  float top = 0;
  for (int64_t k = threadIdx.x; k < f.K; k += kRounding) top = fmaxf(top, fabsf(to_float(x[k])));
  tops[threadIdx.x] = top;
  __syncthreads();
  for (int half = kRounding / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) tops[threadIdx.x] = fmaxf(tops[threadIdx.x], tops[threadIdx.x + half]);
    __syncthreads();
  }
  const float scale = tops[0] > 0 ? __fdiv_rn(tops[0], 127.5f) : 0x1p-23f;
  const RoundedRow to = rounded_row(f, blockIdx.x);
  for (int64_t k = threadIdx.x; k < f.K; k += kRounding)
    to.codes[k] = static_cast<int8_t>(rintf(fminf(fmaxf(__fdiv_rn(to_float(x[k]), scale), -128.0f), 127.0f)));
  if (threadIdx.x == 0) *to.scale = scale;
}

__device__ float scale_at(const IntegerFewRows& f, int64_t i) {
  return f.scale_type == Type::float32 ? static_cast<const float*>(f.scales)[i]
                                       : to_float(static_cast<const BFloat16*>(f.scales)[i]);
}

/// Codes k on of a row: one load's worth, kBits of each; those behind the row's end are 0.
template <int kBits>
struct Codes {
  static constexpr int kCount = 32 / kBits;
  int at[kCount];

  __device__ Codes(const IntegerFewRows& f, const uint8_t* row, int64_t k) {
    if constexpr (kBits == 4) {
      const uint32_t word = reinterpret_cast<const uint32_t*>(row)[k / kCount];
#pragma unroll
      for (int j = 0; j < kCount; ++j) at[j] = static_cast<int>(word >> (4 * j) & 15) - 8;
    } else {
#pragma unroll
      for (int j = 0; j < kCount; ++j)
        at[j] = k + j >= f.K ? 0 : f.offset ? row[k + j] - 128 : static_cast<int8_t>(row[k + j]);
    }
  }
};

template <class Number>
__device__ Number warp_sum(Number x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

/// Column n of rows first to first + M of y, by one warp: its lanes share the columns of x among them.
template <int M, int kBits, class T>
__global__ void __launch_bounds__(kWarps * kWarp) few_rows(IntegerFewRows f, int64_t first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t n = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (n >= f.N) return;
  const uint8_t* row = static_cast<const uint8_t*>(f.codes) + n * f.row_bytes;
  const int64_t groups = f.K / f.group;
  const bool exact = f.dynamic && groups == 1;  // then the sum is one of integers
  float sums[M] = {};
  int whole[M] = {};
  for (int64_t k = lane * Codes<kBits>::kCount; k < f.K; k += kWarp * Codes<kBits>::kCount) {
    Codes<kBits> codes(f, row, k);
    const int64_t i = n * groups + k / f.group;
    const int zero_point = f.zero_points ? f.zero_points[i] : 0;
    const float scale = scale_at(f, i);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      if (f.dynamic) {
        const int8_t* x = rounded_row(f, first + m).codes + k;
        int dot = 0;
        for (int j = 0; j < Codes<kBits>::kCount && k + j < f.K; ++j) dot += (codes.at[j] - zero_point) * x[j];
        exact ? whole[m] += dot : sums[m] += scale * static_cast<float>(dot);
      } else {
        const T* x = static_cast<const T*>(f.x) + (first + m) * f.K + k;
        float dot = 0;
        for (int j = 0; j < Codes<kBits>::kCount && k + j < f.K; ++j)
          dot += static_cast<float>(codes.at[j] - zero_point) * to_float(x[j]);
        sums[m] += scale * dot;
      }
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const float total = exact ? static_cast<float>(warp_sum(whole[m])) * scale_at(f, n) : warp_sum(sums[m]);
    if (lane > 0) continue;
    const float of_row = f.dynamic ? *rounded_row(f, first + m).scale : 1.0f;
    const float shift = f.bias ? to_float(static_cast<const T*>(f.bias)[n]) : 0.0f;
    static_cast<T*>(f.y)[(first + m) * f.N + n] = to<T>(total * of_row + shift);
  }
}

template <int M, class T>
void launch(const IntegerFewRows& f, int64_t first, int64_t rows, cudaStream_t stream) {
  if constexpr (M > 1)
    if (rows < M) return launch<M - 1, T>(f, first, rows, stream);
  const auto blocks = static_cast<unsigned>((f.N + kWarps - 1) / kWarps);
  if (f.bits == 4)
    few_rows<M, 4, T><<<blocks, kWarps * kWarp, 0, stream>>>(f, first);
  else
    few_rows<M, 8, T><<<blocks, kWarps * kWarp, 0, stream>>>(f, first);
  check_launch("integer_few_rows");
}

template <class T>
void all_rows(const IntegerFewRows& f, cudaStream_t stream) {
  if (f.dynamic) {
    round_rows<T><<<static_cast<unsigned>(f.M), kRounding, 0, stream>>>(f);
    check_launch("round_rows");
  }
  for (int64_t first = 0; first < f.M; first += kMostTogether)
    launch<kMostTogether, T>(f, first, std::min<int64_t>(kMostTogether, f.M - first), stream);
}

}  // namespace

void integer_few_rows(const IntegerFewRows& f, void* stream) {
  f.type == Type::float32 ? all_rows<float>(f, stream_of(stream)) : all_rows<BFloat16>(f, stream_of(stream));
}

}  // namespace llmtk::kernels::cuda
