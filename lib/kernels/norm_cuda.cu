// One block per row forward. Backward, one block per slice of rows, which sums the weight's gradient of its rows in
// shared memory (in global memory where a row is too long); each thread keeps to its own columns, so no atomics and the
// same sum every time.

#include "kernels/device.cuh"
#include "kernels/norm_impl.h"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int64_t kSharedBytes = 40 << 10;  // below the 48 KiB that need no asking

template <class T, int N>
__global__ void __launch_bounds__(kMostThreads) forward(NormForward n) {
  __shared__ float shared[kWarp];
  const int64_t row = blockIdx.x, start = row * n.H;
  const int64_t first = static_cast<int64_t>(threadIdx.x) * N, step = static_cast<int64_t>(blockDim.x) * N;
  const T* x = static_cast<const T*>(n.x) + start;
  const T* weight = static_cast<const T*>(n.weight);
  const T* bias = static_cast<const T*>(n.bias);
  T* y = static_cast<T*>(n.y) + start;
  if (n.residual) {
    const T* residual = static_cast<const T*>(n.residual) + start;
    T* sum = static_cast<T*>(n.sum) + start;
    for (int64_t i = first; i < n.H; i += step) {
      Pack<N> a = Pack<N>::load(x + i);
      const Pack<N> b = Pack<N>::load(residual + i);
#pragma unroll
      for (int j = 0; j < N; ++j) a[j] += b[j];
      a.store(sum + i);
    }
    x = sum;  // every thread reads back only what it wrote itself
  }
  float mean = 0.0f;
  if (!n.rms) {
    float total = 0.0f;
    for (int64_t i = first; i < n.H; i += step) {
      const Pack<N> a = Pack<N>::load(x + i);
#pragma unroll
      for (int j = 0; j < N; ++j) total += a[j];
    }
    mean = block_sum(total, shared) / static_cast<float>(n.H);
  }
  float square = 0.0f;
  for (int64_t i = first; i < n.H; i += step) {
    const Pack<N> a = Pack<N>::load(x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) square += (a[j] - mean) * (a[j] - mean);
  }
  const float rstd = 1.0f / sqrtf(block_sum(square, shared) / static_cast<float>(n.H) + n.eps);
  for (int64_t i = first; i < n.H; i += step) {
    Pack<N> a = Pack<N>::load(x + i);
    const Pack<N> w = Pack<N>::load(weight + i);
    Pack<N> b{};
    if (bias) b = Pack<N>::load(bias + i);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float normed = (a[j] - mean) * rstd;
      if (n.unit_offset)
        a[j] = normed * (1.0f + w[j]);
      else
        a[j] = n.rms ? to_float(to<T>(normed)) * w[j] : normed * w[j] + b[j];
    }
    a.store(y + i);
  }
  if (threadIdx.x == 0) {
    if (n.mean) n.mean[row] = mean;
    n.rstd[row] = rstd;
  }
}

/// With g = dy * weight and xh the normalised row: dx = rstd * (g - mean(g) - xh * mean(g * xh)); RMSNorm lacks mean(g).
template <class T, int N>
__global__ void __launch_bounds__(kMostThreads) backward(NormBackward n, bool sum_in_shared) {
  __shared__ float shared[kWarp];
  extern __shared__ float sums[];
  const int64_t per_slice = (n.rows + n.slices - 1) / n.slices;
  const int64_t slice = blockIdx.x, end = min(n.rows, (slice + 1) * per_slice);
  const int64_t first = static_cast<int64_t>(threadIdx.x) * N, step = static_cast<int64_t>(blockDim.x) * N;
  const T* weight = static_cast<const T*>(n.weight);
  const float offset = n.unit_offset ? 1.0f : 0.0f;
  float* const weight_part = n.dweight_parts ? n.dweight_parts + slice * n.H : nullptr;
  float* const bias_part = n.dbias_parts ? n.dbias_parts + slice * n.H : nullptr;
  float* const dweight = weight_part && sum_in_shared ? sums : weight_part;
  float* const dbias = bias_part && sum_in_shared ? sums + (weight_part ? n.H : 0) : bias_part;
  for (int64_t i = first; i < n.H; i += step) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if (dweight) dweight[i + j] = 0.0f;
      if (dbias) dbias[i + j] = 0.0f;
    }
  }
  for (int64_t row = slice * per_slice; row < end; ++row) {
    const T* dy = static_cast<const T*>(n.dy) + row * n.H;
    const T* x = static_cast<const T*>(n.x) + row * n.H;
    const T* dsum = n.dsum ? static_cast<const T*>(n.dsum) + row * n.H : nullptr;
    T* dx = static_cast<T*>(n.dx) + row * n.H;
    const float mean = n.rms ? 0.0f : n.mean[row], rstd = n.rstd[row];
    float total_g = 0.0f, total_gx = 0.0f;
    for (int64_t i = first; i < n.H; i += step) {
      const Pack<N> d = Pack<N>::load(dy + i), a = Pack<N>::load(x + i), w = Pack<N>::load(weight + i);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float normed = (a[j] - mean) * rstd, g = d[j] * (offset + w[j]);
        total_g += g;
        total_gx += g * normed;
        if (dweight) dweight[i + j] += d[j] * normed;
        if (dbias) dbias[i + j] += d[j];
      }
    }
    const float mean_g = n.rms ? 0.0f : block_sum(total_g, shared) / static_cast<float>(n.H);
    const float mean_gx = block_sum(total_gx, shared) / static_cast<float>(n.H);
    for (int64_t i = first; i < n.H; i += step) {
      Pack<N> d = Pack<N>::load(dy + i);
      const Pack<N> a = Pack<N>::load(x + i), w = Pack<N>::load(weight + i);
      Pack<N> along{};
      if (dsum) along = Pack<N>::load(dsum + i);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float normed = (a[j] - mean) * rstd;
        d[j] = rstd * (d[j] * (offset + w[j]) - mean_g - normed * mean_gx) + along[j];
      }
      d.store(dx + i);
    }
  }
  if (!sum_in_shared) return;
  for (int64_t i = first; i < n.H; i += step) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      if (dweight) weight_part[i + j] = dweight[i + j];
      if (dbias) bias_part[i + j] = dbias[i + j];
    }
  }
}

constexpr int kReduceRows = 8;

/// A block for kWarp columns: kReduceRows partial sums of each, then their sum.
template <class T>
__global__ void reduce(const float* parts, int64_t slices, int64_t H, T* out) {
  __shared__ float shared[kReduceRows][kWarp];
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + threadIdx.x;
  float sum = 0.0f;
  if (column < H)
    for (int64_t s = threadIdx.y; s < slices; s += kReduceRows) sum += parts[s * H + column];
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= H) return;
  for (int r = 1; r < kReduceRows; ++r) sum += shared[r][threadIdx.x];
  out[column] = to<T>(sum);
}

template <class T, int N>
void run_forward(const NormForward& n, cudaStream_t stream) {
  forward<T, N><<<static_cast<unsigned>(n.rows), threads_for((n.H + N - 1) / N, kMostThreads), 0, stream>>>(n);
}

template <class T>
void forward_typed(const NormForward& n, cudaStream_t stream) {
  const bool packed = n.H % kPack<T> == 0 && aligned(n.x) && aligned(n.residual) && aligned(n.sum) &&
                      aligned(n.weight) && aligned(n.bias) && aligned(n.y);
  packed ? run_forward<T, kPack<T>>(n, stream) : run_forward<T, 1>(n, stream);
}

template <class T, int N>
void run_backward(const NormBackward& n, cudaStream_t stream) {
  const int64_t sums = n.H * 4 * ((n.dweight_parts ? 1 : 0) + (n.dbias_parts ? 1 : 0));
  const bool sum_in_shared = sums <= kSharedBytes;
  const int threads = threads_for((n.H + N - 1) / N, kMostThreads);
  backward<T, N><<<static_cast<unsigned>(n.slices), threads, sum_in_shared ? static_cast<size_t>(sums) : 0, stream>>>(
      n, sum_in_shared);
}

template <class T>
void backward_typed(const NormBackward& n, cudaStream_t stream) {
  const bool packed = n.H % kPack<T> == 0 && aligned(n.dy) && aligned(n.dsum) && aligned(n.x) && aligned(n.weight) &&
                      aligned(n.dx);
  packed ? run_backward<T, kPack<T>>(n, stream) : run_backward<T, 1>(n, stream);
}

}  // namespace

void norm_forward(const NormForward& n, void* stream) {
  n.type == Type::float32 ? forward_typed<float>(n, stream_of(stream)) : forward_typed<BFloat16>(n, stream_of(stream));
  check_launch("norm_forward");
}

void norm_backward(const NormBackward& n, void* stream) {
  n.type == Type::float32 ? backward_typed<float>(n, stream_of(stream))
                          : backward_typed<BFloat16>(n, stream_of(stream));
  check_launch("norm_backward");
}

void norm_reduce(const float* parts, int64_t slices, int64_t H, Type type, void* out, void* stream) {
  const unsigned blocks = static_cast<unsigned>((H + kWarp - 1) / kWarp);
  const dim3 threads(kWarp, kReduceRows);
  if (type == Type::float32)
    reduce<<<blocks, threads, 0, stream_of(stream)>>>(parts, slices, H, static_cast<float*>(out));
  else
    reduce<<<blocks, threads, 0, stream_of(stream)>>>(parts, slices, H, static_cast<BFloat16*>(out));
  check_launch("norm_reduce");
}

}  // namespace llmtk::kernels::cuda
