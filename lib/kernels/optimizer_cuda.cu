#include "kernels/device.cuh"
#include "kernels/optimizer_impl.h"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWidth = 4;  // elements per thread and turn: 16 bytes of float32, 8 of bfloat16

/// N float32 parameters, or masters joined from bfloat16 weights and their extra bits. See optimizer.h.
template <class P, int N>
struct Masters {
  template <class Bits>
  struct alignas(2 * N) Halves {
    Bits values[N];
  };
  static __device__ Pack<N> load(const P* param, const int16_t* extra) {
    if constexpr (sizeof(P) == 4) {
      return Pack<N>::load(param);
    } else {
      const auto high = *reinterpret_cast<const Halves<uint16_t>*>(param);
      const auto low = *reinterpret_cast<const Halves<int16_t>*>(extra);
      Pack<N> out;
#pragma unroll
      for (int j = 0; j < N; ++j)
        out[j] = __uint_as_float((static_cast<unsigned>(high.values[j]) << 16) +
                                 static_cast<unsigned>(static_cast<int>(low.values[j])));
      return out;
    }
  }
  static __device__ void store(const Pack<N>& x, P* param, int16_t* extra) {
    if constexpr (sizeof(P) == 4) {
      x.store(param);
    } else {
      Halves<uint16_t> high;
      Halves<int16_t> low;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        // A NaN's low bits could carry into its sign.
        const unsigned bits = isnan(x[j]) ? 0x7FC00000u : __float_as_uint(x[j]);
        const unsigned rounded = (bits + 0x8000u) >> 16;
        high.values[j] = static_cast<uint16_t>(rounded);
        low.values[j] = static_cast<int16_t>(static_cast<int>(bits - (rounded << 16)));
      }
      *reinterpret_cast<Halves<uint16_t>*>(param) = high;
      *reinterpret_cast<Halves<int16_t>*>(extra) = low;
    }
  }
};

template <class P, class G, int N>
__device__ void adamw_at(const AdamWChunk& c, int64_t i) {
  P* const param = static_cast<P*>(c.param) + i;
  G* const grad = static_cast<G*>(c.grad) + i;
  int16_t* const extra = c.extra + (sizeof(P) == 4 ? 0 : i);
  Pack<N> p = Masters<P, N>::load(param, extra);
  Pack<N> g = Pack<N>::load(grad), m = Pack<N>::load(c.exp_avg + i), v = Pack<N>::load(c.exp_avg_sq + i);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float d = g[j] * c.grad_scale;
    m[j] += c.one_minus_beta1 * (d - m[j]);
    v[j] = c.beta2 * v[j] + d * d * c.one_minus_beta2;
    p[j] = p[j] * c.decay - c.step_size * m[j] / (sqrtf(v[j]) * c.inverse_correction + c.eps);
    g[j] = 0.0f;
  }
  Masters<P, N>::store(p, param, extra);
  m.store(c.exp_avg + i);
  v.store(c.exp_avg_sq + i);
  if (c.zero_grad) g.store(grad);
}

template <class P, class G, int N>
__device__ void sgd_at(const SgdChunk& c, int64_t i) {
  P* const param = static_cast<P*>(c.param) + i;
  G* const grad = static_cast<G*>(c.grad) + i;
  int16_t* const extra = c.extra + (sizeof(P) == 4 ? 0 : i);
  Pack<N> p = Masters<P, N>::load(param, extra), g = Pack<N>::load(grad), buffer{};
  if (c.momentum) buffer = Pack<N>::load(c.momentum + i);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    float d = g[j] * c.grad_scale + p[j] * c.weight_decay;
    if (c.momentum) {
      buffer[j] = c.momentum_factor * buffer[j] + d;
      d = c.nesterov ? d + c.momentum_factor * buffer[j] : buffer[j];
    }
    p[j] -= c.lr * d;
    g[j] = 0.0f;
  }
  Masters<P, N>::store(p, param, extra);
  if (c.momentum) buffer.store(c.momentum + i);
  if (c.zero_grad) g.store(grad);
}

struct AdamW {
  template <class P, class G, int N>
  static __device__ void at(const AdamWChunk& c, int64_t i) {
    adamw_at<P, G, N>(c, i);
  }
};
struct Sgd {
  template <class P, class G, int N>
  static __device__ void at(const SgdChunk& c, int64_t i) {
    sgd_at<P, G, N>(c, i);
  }
};

/// The elements of a chunk, N at a time, then the few that are left.
template <class Step, class P, class G, int N, class Chunk>
__global__ void __launch_bounds__(kThreads) step_all(Chunk c) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t packs = c.n / N, stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t k = index; k < packs; k += stride) Step::template at<P, G, N>(c, k * N);
  if (packs * N + index < c.n) Step::template at<P, G, 1>(c, packs * N + index);
}

template <class Step, class P, class G, class Chunk>
void launch(const Chunk& c, bool states_aligned, cudaStream_t stream) {
  if (c.n == 0) return;
  const bool packed = states_aligned && aligned(c.grad, sizeof(G) * kWidth) && aligned(c.param, sizeof(P) * kWidth) &&
                      aligned(c.extra, 2 * kWidth);
  if (packed)
    step_all<Step, P, G, kWidth><<<blocks_for((c.n + kWidth - 1) / kWidth, kThreads), kThreads, 0, stream>>>(c);
  else
    step_all<Step, P, G, 1><<<blocks_for(c.n, kThreads), kThreads, 0, stream>>>(c);
}

template <class Step, class Chunk>
void launch_typed(const Chunk& c, bool states_aligned, cudaStream_t stream) {
  if (c.param_type == Type::float32)
    c.grad_type == Type::float32 ? launch<Step, float, float>(c, states_aligned, stream)
                                 : launch<Step, float, BFloat16>(c, states_aligned, stream);
  else
    c.grad_type == Type::float32 ? launch<Step, BFloat16, float>(c, states_aligned, stream)
                                 : launch<Step, BFloat16, BFloat16>(c, states_aligned, stream);
}

/// Eight squares at a time in float32, those sums in float64.
template <class T>
__global__ void __launch_bounds__(kThreads) squares(const T* x, int64_t n, double* parts) {
  constexpr int kRun = 8;
  __shared__ double shared[kThreads];
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  double total = 0.0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride * kRun) {
    float run = 0.0f;
#pragma unroll
    for (int j = 0; j < kRun; ++j) {
      const int64_t k = i + j * stride;
      const float value = k < n ? to_float(x[k]) : 0.0f;
      run += value * value;
    }
    total += static_cast<double>(run);
  }
  shared[threadIdx.x] = total;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) parts[blockIdx.x] = shared[0];
}

template <class T>
__global__ void __launch_bounds__(kThreads) add(float* dst, const T* src, int64_t n) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride)
    dst[i] += to_float(src[i]);
}

}  // namespace

void adamw(const AdamWChunk& c, void* stream) {
  launch_typed<AdamW>(c, aligned(c.exp_avg) && aligned(c.exp_avg_sq), stream_of(stream));
  check_launch("adamw");
}

void sgd(const SgdChunk& c, void* stream) {
  launch_typed<Sgd>(c, aligned(c.momentum), stream_of(stream));
  check_launch("sgd");
}

void squared_norm(Type type, const void* x, int64_t n, double* parts, int blocks, void* stream) {
  if (type == Type::float32)
    squares<<<blocks, kThreads, 0, stream_of(stream)>>>(static_cast<const float*>(x), n, parts);
  else
    squares<<<blocks, kThreads, 0, stream_of(stream)>>>(static_cast<const BFloat16*>(x), n, parts);
  check_launch("squared_norm");
}

void accumulate(float* dst, Type type, const void* src, int64_t n, void* stream) {
  if (n == 0) return;
  const int blocks = blocks_for(n, kThreads);
  if (type == Type::float32)
    add<<<blocks, kThreads, 0, stream_of(stream)>>>(dst, static_cast<const float*>(src), n);
  else
    add<<<blocks, kThreads, 0, stream_of(stream)>>>(dst, static_cast<const BFloat16*>(src), n);
  check_launch("accumulate");
}

}  // namespace llmtk::kernels::cuda
