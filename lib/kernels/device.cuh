#pragma once
// What the *_cuda.cu files share: packs of elements that are loaded and stored at once, sums over a block, launches.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "kernels/types.h"

namespace llmtk::kernels::cuda {

inline constexpr int kWarp = 32;

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(BFloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }

template <class T>
__device__ inline T to(float x);
template <>
__device__ inline float to<float>(float x) {
  return x;
}
template <>
__device__ inline BFloat16 to<BFloat16>(float x) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(x))};
}

/// Elements that one thread loads or stores with one instruction of 16 bytes.
template <class T>
inline constexpr int kPack = 16 / sizeof(T);

/// N elements as floats, from or to memory that is aligned to them (or to 16 bytes, if they take more).
template <int N>
struct Pack {
  float values[N];

  template <class T>
  struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Raw {
    T values[N];
  };
  template <class T>
  __device__ static Pack load(const T* p) {
    const Raw<T> raw = *reinterpret_cast<const Raw<T>*>(p);
    Pack out;
#pragma unroll
    for (int i = 0; i < N; ++i) out.values[i] = to_float(raw.values[i]);
    return out;
  }
  template <class T>
  __device__ void store(T* p) const {
    Raw<T> raw;
#pragma unroll
    for (int i = 0; i < N; ++i) raw.values[i] = to<T>(values[i]);
    *reinterpret_cast<Raw<T>*>(p) = raw;
  }
  __device__ float& operator[](int i) { return values[i]; }
  __device__ float operator[](int i) const { return values[i]; }
};

/// Whether a pointer may be read in packs of 16 bytes; null is no obstacle.
inline bool aligned(const void* p, uintptr_t bytes = 16) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

/// The sum over a block's threads, in every thread; `shared` holds kWarp floats. Blocks are whole warps.
__device__ inline float block_sum(float x, float* shared) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  __syncthreads();  // an earlier sum may still be read
  if (lane == 0) shared[warp] = x;
  __syncthreads();
  x = lane < warps ? shared[lane] : 0.0f;
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, offset);
  return x;
}

/// Threads for a block that walks over `work` items, up to `most`: whole warps.
inline int threads_for(int64_t work, int most) {
  return static_cast<int>(std::clamp<int64_t>((work + kWarp - 1) / kWarp * kWarp, kWarp, most));
}
/// Blocks for a loop over `work` items that strides over the grid.
inline int blocks_for(int64_t work, int threads) {
  return static_cast<int>(std::clamp<int64_t>((work + threads - 1) / threads, 1, 4096));
}

inline cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

/// After a launch: it may have been refused.
inline void check_launch(const char* kernel) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("the CUDA kernel ") + kernel + " could not be started: " +
                             cudaGetErrorString(error));
}

}  // namespace llmtk::kernels::cuda
