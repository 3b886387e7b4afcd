// One block per row of logits: a pass for the maximum and the sum together, a second one for the gradient in place.

#include <cfloat>

#include "kernels/cross_entropy_impl.h"
#include "kernels/device.cuh"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kThreads = 512;

/// sum of e^(x - top) over what was seen. -infinity adds 0; NaN and +infinity make the sum or the top not finite.
struct Running {
  float top = -FLT_MAX, sum = 0.0f;

  template <int N>
  __device__ void add(const Pack<N>& x) {
    float most = top;
#pragma unroll
    for (int j = 0; j < N; ++j) most = fmaxf(most, x[j]);
    sum *= __expf(top - most);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += __expf(x[j] - most);
    top = most;
  }
  __device__ void add(float other_top, float other_sum) {
    const float most = fmaxf(top, other_top);
    sum = sum * __expf(top - most) + other_sum * __expf(other_top - most);
    top = most;
  }
  /// Joins the lanes of a warp; every lane has the result.
  __device__ void join_warp() {
#pragma unroll
    for (int offset = kWarp / 2; offset > 0; offset /= 2) {
      const float other_top = __shfl_xor_sync(0xFFFFFFFFu, top, offset);
      const float other_sum = __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      add(other_top, other_sum);
    }
  }
};

/// f(pack, index) for a row that may begin and end anywhere: a part until the alignment fits, packs, the rest.
template <class T, class F>
__device__ void each_pack(const T* row, int64_t n, F f) {
  constexpr int N = kPack<T>;
  const auto address = reinterpret_cast<uintptr_t>(row);
  const int64_t head = min(n, static_cast<int64_t>((16 - address % 16) % 16 / sizeof(T)));
  const int64_t packs = (n - head) / N, tail = head + packs * N;
  if (threadIdx.x < head) f(Pack<1>::load(row + threadIdx.x), static_cast<int64_t>(threadIdx.x));
  for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) f(Pack<N>::load(row + head + p * N), head + p * N);
  if (tail + threadIdx.x < n) f(Pack<1>::load(row + tail + threadIdx.x), tail + threadIdx.x);
}

/// Of a whole row, in every thread of its block.
template <class T>
__device__ Running running_of_row(const T* x, int64_t V, float factor = 1.0f) {
  __shared__ float tops[kWarp], sums[kWarp];
  Running all;
  each_pack(x, V, [&](auto pack, int64_t) {
    constexpr int N = sizeof(pack) / sizeof(float);
#pragma unroll
    for (int j = 0; j < N; ++j) pack[j] *= factor;
    all.add(pack);
  });
  all.join_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  if (lane == 0) {
    tops[warp] = all.top;
    sums[warp] = all.sum;
  }
  __syncthreads();
  all = Running();
  if (lane < kThreads / kWarp) all.add(tops[lane], sums[lane]);
  all.join_warp();
  return all;
}

template <class T>
__global__ void __launch_bounds__(kThreads) loss(SoftmaxLoss s) {
  const int64_t row = blockIdx.x;
  T* x = static_cast<T*>(s.logits) + row * s.V;
  const int64_t target = s.targets[row];
  const float target_logit = to_float(x[target]);  // read before the block's first barrier, written after its last
  const Running all = running_of_row(x, s.V);
  if (threadIdx.x == 0) s.losses[row] = logf(all.sum) + (all.top - target_logit);
  if (!s.gradient) return;
  const float factor = s.scale / all.sum;
  each_pack(x, s.V, [&](auto pack, int64_t i) {
    constexpr int N = sizeof(pack) / sizeof(float);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      pack[j] = __expf(pack[j] - all.top) * factor;
      if (i + j == target) pack[j] -= s.scale;
    }
    pack.store(x + i);
  });
}

constexpr float kLeastLog = -87.0f;  // log p may be -infinity where p is 0: their product is 0

template <class T>
__global__ void __launch_bounds__(kThreads) log_prob(TokenLogProb s) {
  __shared__ float shared[kWarp];
  const int64_t row = blockIdx.x;
  const T* x = static_cast<const T*>(s.logits) + row * s.V;
  const Running all = running_of_row(x, s.V, s.inverse_temperature);
  const float log_sum = logf(all.sum);
  if (threadIdx.x == 0) {
    s.log_probs[row] = to_float(x[s.targets[row]]) * s.inverse_temperature - all.top - log_sum;
    s.log_sums[row] = all.top + log_sum;
  }
  if (!s.entropies) return;
  float weighted = 0.0f;
  each_pack(x, s.V, [&](const auto& pack, int64_t) {
    constexpr int N = sizeof(pack) / sizeof(float);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float z = pack[j] * s.inverse_temperature - all.top;
      weighted += __expf(z) * fmaxf(z, kLeastLog);
    }
  });
  weighted = block_sum(weighted, shared);
  if (threadIdx.x == 0) s.entropies[row] = log_sum - weighted / all.sum;
}

template <class T>
__global__ void __launch_bounds__(kThreads) log_prob_gradient(TokenLogProb s) {
  const int64_t row = blockIdx.x;
  T* x = static_cast<T*>(s.logits) + row * s.V;
  const int64_t target = s.targets[row];
  const float of_log_prob = s.of_log_probs ? s.of_log_probs[row] : 0.0f;
  const float of_entropy = s.of_entropies ? s.of_entropies[row] : 0.0f;
  const float log_sum = s.log_sums[row], entropy = s.entropies ? s.entropies[row] : 0.0f;
  each_pack(x, s.V, [&](auto pack, int64_t i) {
    constexpr int N = sizeof(pack) / sizeof(float);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float log_p = pack[j] * s.inverse_temperature - log_sum;
      const float slope = of_log_prob + of_entropy * (fmaxf(log_p, kLeastLog) + entropy);
      pack[j] = s.inverse_temperature * ((i + j == target ? of_log_prob : 0.0f) - __expf(log_p) * slope);
    }
    pack.store(x + i);
  });
}

}  // namespace

void softmax_loss(const SoftmaxLoss& s, void* stream) {
  const auto rows = static_cast<unsigned>(s.rows);
  if (s.type == Type::float32)
    loss<float><<<rows, kThreads, 0, stream_of(stream)>>>(s);
  else
    loss<BFloat16><<<rows, kThreads, 0, stream_of(stream)>>>(s);
  check_launch("softmax_loss");
}

void token_log_prob(const TokenLogProb& s, void* stream) {
  const auto rows = static_cast<unsigned>(s.rows);
  if (s.type == Type::float32)
    log_prob<float><<<rows, kThreads, 0, stream_of(stream)>>>(s);
  else
    log_prob<BFloat16><<<rows, kThreads, 0, stream_of(stream)>>>(s);
  check_launch("token_log_prob");
}

void token_log_prob_gradient(const TokenLogProb& s, void* stream) {
  const auto rows = static_cast<unsigned>(s.rows);
  if (s.type == Type::float32)
    log_prob_gradient<float><<<rows, kThreads, 0, stream_of(stream)>>>(s);
  else
    log_prob_gradient<BFloat16><<<rows, kThreads, 0, stream_of(stream)>>>(s);
  check_launch("token_log_prob_gradient");
}

}  // namespace llmtk::kernels::cuda
