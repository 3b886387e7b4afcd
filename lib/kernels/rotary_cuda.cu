#include "kernels/device.cuh"
#include "kernels/rotary_impl.h"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kMostThreads = 256;

/// One block per position of B * T: its heads share the angles.
/// Forward: y1 = x1 c1 - x2 s1, y2 = x2 c2 + x1 s2. Its transpose: y1 = x1 c1 + x2 s2, y2 = x2 c2 - x1 s1.
template <class T, class A, int N>
__global__ void __launch_bounds__(kMostThreads) rotate(Rotary r) {
  const int64_t b = blockIdx.x / r.T, t = blockIdx.x % r.T;
  const T* x = static_cast<const T*>(r.x) + b * r.x_batch + t * r.x_time;
  T* y = static_cast<T*>(r.y) + b * r.y_batch + t * r.y_time;
  const A* cos = static_cast<const A*>(r.cos) + b * r.angle_batch + t * r.angle_time;
  const A* sin = static_cast<const A*>(r.sin) + b * r.angle_batch + t * r.angle_time;
  const int half = static_cast<int>(r.R / 2), packs = half / N, work = static_cast<int>(r.H) * packs;
  for (int k = static_cast<int>(threadIdx.x); k < work; k += static_cast<int>(blockDim.x)) {
    const int64_t h = k / packs;
    const int i = k % packs * N;
    const T* in = x + h * r.x_head + i;
    T* out = y + h * r.y_head + i;
    const Pack<N> x1 = Pack<N>::load(in), x2 = Pack<N>::load(in + half);
    const Pack<N> c1 = Pack<N>::load(cos + i), c2 = Pack<N>::load(cos + half + i);
    const Pack<N> s1 = Pack<N>::load(sin + i), s2 = Pack<N>::load(sin + half + i);
    Pack<N> y1, y2;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      y1[j] = r.inverse ? x1[j] * c1[j] + x2[j] * s2[j] : x1[j] * c1[j] - x2[j] * s1[j];
      y2[j] = r.inverse ? x2[j] * c2[j] - x1[j] * s1[j] : x2[j] * c2[j] + x1[j] * s2[j];
    }
    y1.store(out);
    y2.store(out + half);
  }
  const int rest = static_cast<int>(r.D - r.R), copies = static_cast<int>(r.H) * rest;
  for (int k = static_cast<int>(threadIdx.x); k < copies; k += static_cast<int>(blockDim.x)) {
    const int64_t h = k / rest, i = r.R + k % rest;
    y[h * r.y_head + i] = x[h * r.x_head + i];
  }
}

template <class T, class A>
void run(const Rotary& r, cudaStream_t stream) {
  constexpr int N = kPack<T>;
  bool packed = r.R / 2 % N == 0 && aligned(r.x) && aligned(r.y) && aligned(r.cos) && aligned(r.sin);
  for (const int64_t stride : {r.x_batch, r.x_head, r.x_time, r.y_batch, r.y_head, r.y_time, r.angle_batch, r.angle_time})
    packed = packed && stride % N == 0;
  const auto blocks = static_cast<unsigned>(r.B * r.T);
  const int threads = threads_for(r.H * r.R / 2 / (packed ? N : 1), kMostThreads);
  if (packed)
    rotate<T, A, N><<<blocks, threads, 0, stream>>>(r);
  else
    rotate<T, A, 1><<<blocks, threads, 0, stream>>>(r);
}

}  // namespace

void rotary(const Rotary& r, void* stream) {
  const bool narrow = r.type == Type::bfloat16;
  if (r.angle_type == Type::float32)
    narrow ? run<BFloat16, float>(r, stream_of(stream)) : run<float, float>(r, stream_of(stream));
  else
    narrow ? run<BFloat16, BFloat16>(r, stream_of(stream)) : run<float, BFloat16>(r, stream_of(stream));
  check_launch("rotary");
}

}  // namespace llmtk::kernels::cuda
