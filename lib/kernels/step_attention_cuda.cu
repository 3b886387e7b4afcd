#include <cmath>

#include "kernels/device.cuh"
#include "kernels/step_attention_impl.h"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kPerLane = StepAttention::kMostCudaDim / kWarp;  // elements of a head that a lane holds

__device__ inline float to_float(int8_t x) { return static_cast<float>(x); }
using cuda::to_float;

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

template <class T>
__device__ const T* at_head(const Heads& x, int64_t b, int64_t head, int64_t t) {
  return static_cast<const T*>(x.data) + b * x.batch + head * x.head + t * x.time;
}

/// One token of one head, by a warp.
template <class T>
__device__ void append(const StepAttention& a, const Heads& from, void* to, float* scales, int64_t b, int64_t head,
                       int64_t t, int lane) {
  const T* x = at_head<T>(from, b, head, t);
  const int64_t place = (b * a.K + head) * a.room + a.lengths[b] + t;
  if (!a.quantized) {
    for (int64_t i = lane; i < a.D; i += kWarp) static_cast<T*>(to)[place * a.D + i] = x[i];
    return;
  }
  float largest = 0;
  for (int64_t i = lane; i < a.D; i += kWarp) largest = fmaxf(largest, fabsf(to_float(x[i])));
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xFFFFFFFFu, largest, offset));
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  for (int64_t i = lane; i < a.D; i += kWarp)
    static_cast<int8_t*>(to)[place * a.D + i] = static_cast<int8_t>(rintf(to_float(x[i]) * inverse));
  if (lane == 0) scales[place] = largest / 127.0f;
}

template <class T>
__global__ void __launch_bounds__(kWarp) append_kernel(StepAttention a) {
  const int64_t t = blockIdx.x % a.T, head = blockIdx.x / a.T % a.K, b = blockIdx.x / a.T / a.K;
  const int lane = static_cast<int>(threadIdx.x);
  append<T>(a, a.k, a.keys, a.key_scales, b, head, t, lane);
  append<T>(a, a.v, a.values, a.value_scales, b, head, t, lane);
}

/// What has been seen of the keys: the softmax so far (Milakov and Gimelshein 2018).
struct Running {
  float top = -INFINITY, sum = 0, values[kPerLane] = {};

  __device__ void add(float score, float weight_of_value, const float* value) {
    const float higher = fmaxf(top, score), old = top == -INFINITY ? 0.0f : expf(top - higher), now = expf(score - higher);
    sum = sum * old + now;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) values[j] = values[j] * old + now * weight_of_value * value[j];
    top = higher;
  }
};

/// One query of one head by one block: its warps share the keys among them.
template <class T, class C>
__global__ void __launch_bounds__(kThreads) attend(StepAttention a) {
  __shared__ float tops[kWarps], sums[kWarps];
  extern __shared__ float parts[];  // [kWarps, D]
  const int64_t head = blockIdx.x % a.H, t = blockIdx.x / a.H % a.T, b = blockIdx.x / a.H / a.T;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int64_t end = a.lengths[b] + t + 1, begin = a.window > 0 && end > a.window ? end - a.window : 0;
  const int64_t first = (b * a.K + head / (a.H / a.K)) * a.room;
  const T* query = at_head<T>(a.q, b, head, t);
  float q[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) q[j] = lane + j * kWarp < a.D ? to_float(query[lane + j * kWarp]) : 0.0f;
  Running running;
  for (int64_t s = begin + warp; s < end; s += kWarps) {
    const C* key = static_cast<const C*>(a.keys) + (first + s) * a.D;
    const C* held = static_cast<const C*>(a.values) + (first + s) * a.D;
    float dot = 0, value[kPerLane];
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int64_t i = lane + j * kWarp;
      dot += i < a.D ? q[j] * to_float(key[i]) : 0.0f;
      value[j] = i < a.D ? to_float(held[i]) : 0.0f;
    }
    float score = warp_sum(dot) * a.scale;
    if (a.quantized) score *= a.key_scales[first + s];
    if (a.softcap > 0) score = a.softcap * tanhf(score / a.softcap);
    running.add(score, a.quantized ? a.value_scales[first + s] : 1.0f, value);
  }
  if (lane == 0) tops[warp] = running.top, sums[warp] = running.sum;
  __syncthreads();
  float top = -INFINITY, sum = 0;
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, tops[w]);
  for (int w = 0; w < kWarps; ++w) sum += tops[w] == -INFINITY ? 0.0f : sums[w] * expf(tops[w] - top);
  const float share = running.top == -INFINITY ? 0.0f : expf(running.top - top) / sum;
  for (int j = 0; j < kPerLane; ++j)
    if (lane + j * kWarp < a.D) parts[warp * a.D + lane + j * kWarp] = running.values[j] * share;
  __syncthreads();
  T* y = static_cast<T*>(a.y) + ((b * a.T + t) * a.H + head) * a.D;
  for (int64_t i = threadIdx.x; i < a.D; i += kThreads) {
    float total = 0;
    for (int w = 0; w < kWarps; ++w) total += parts[w * a.D + i];
    y[i] = to<T>(total);
  }
}

template <class T>
void launch(const StepAttention& a, void* stream) {
  append_kernel<T><<<static_cast<unsigned>(a.B * a.K * a.T), kWarp, 0, stream_of(stream)>>>(a);
  check_launch("append_step");
  const auto blocks = static_cast<unsigned>(a.B * a.T * a.H);
  const size_t shared = kWarps * static_cast<size_t>(a.D) * sizeof(float);
  if (a.quantized)
    attend<T, int8_t><<<blocks, kThreads, shared, stream_of(stream)>>>(a);
  else
    attend<T, T><<<blocks, kThreads, shared, stream_of(stream)>>>(a);
  check_launch("step_attention");
}

}  // namespace

void step_attention(const StepAttention& a, void* stream) {
  a.type == Type::float32 ? launch<float>(a, stream) : launch<BFloat16>(a, stream);
}

}  // namespace llmtk::kernels::cuda
