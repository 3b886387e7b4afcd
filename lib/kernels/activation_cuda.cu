#include "kernels/activation_impl.h"
#include "kernels/device.cuh"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// An activation's value and derivative at x.
struct Point {
  float value, slope;
};

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

struct Silu {
  __device__ static Point at(float x) {
    const float s = sigmoid(x), y = x * s;
    return {y, s + y * (1.0f - s)};
  }
};

/// 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
struct GeluTanh {
  __device__ static Point at(float x) {
    constexpr float kTwoRoot = 1.5957691216f, kCube = 0.044715f;  // kTwoRoot = 2 sqrt(2/pi)
    const float square = x * x, s = sigmoid(kTwoRoot * x * (1.0f + kCube * square)), y = x * s;
    return {y, s + y * (1.0f - s) * kTwoRoot * (1.0f + 3.0f * kCube * square)};
  }
};

/// x Phi(x)
struct Gelu {
  __device__ static Point at(float x) {
    const float phi = normcdff(x);
    return {x * phi, phi + x * 0.398942280f * __expf(-0.5f * x * x)};
  }
};

template <class T, class A, int N>
__global__ void __launch_bounds__(kThreads) forward(ActivationForward a) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * N;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
    const T* up = a.up ? static_cast<const T*>(a.up) + row * a.up_stride : nullptr;
    T* y = static_cast<T*>(a.y) + row * a.columns;
    for (int64_t i = first; i < a.columns; i += step) {
      Pack<N> v = Pack<N>::load(x + i);
#pragma unroll
      for (int j = 0; j < N; ++j) v[j] = A::at(v[j]).value;
      if (up) {
        const Pack<N> u = Pack<N>::load(up + i);
#pragma unroll
        for (int j = 0; j < N; ++j) v[j] *= u[j];
      }
      v.store(y + i);
    }
  }
}

template <class T, class A, int N>
__global__ void __launch_bounds__(kThreads) backward(ActivationBackward a) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x * N;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * N;
  for (int64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride;
    const T* up = a.up ? static_cast<const T*>(a.up) + row * a.up_stride : nullptr;
    const T* dy = static_cast<const T*>(a.dy) + row * a.columns;
    for (int64_t i = first; i < a.columns; i += step) {
      const Pack<N> v = Pack<N>::load(x + i);
      Pack<N> d = Pack<N>::load(dy + i);
      if (up) {
        const Pack<N> u = Pack<N>::load(up + i);
        Pack<N> dup;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const Point point = A::at(v[j]);
          dup[j] = d[j] * point.value;
          d[j] *= u[j] * point.slope;
        }
        dup.store(static_cast<T*>(a.dup) + row * a.columns + i);
      } else {
#pragma unroll
        for (int j = 0; j < N; ++j) d[j] *= A::at(v[j]).slope;
      }
      d.store(static_cast<T*>(a.dx) + row * a.columns + i);
    }
  }
}

/// Rows that follow one another are one row.
template <class Arguments>
Arguments flattened(Arguments a) {
  if (a.x_stride != a.columns || (a.up && a.up_stride != a.columns)) return a;
  a.columns *= a.rows;
  a.rows = 1;
  a.x_stride = a.up_stride = a.columns;
  return a;
}

dim3 grid_for(int64_t rows, int64_t columns, int pack) {
  return dim3(static_cast<unsigned>(blocks_for((columns + pack - 1) / pack, kThreads)),
              static_cast<unsigned>(std::min<int64_t>(rows, 65535)));
}

template <class T>
bool strides_packed(int64_t columns, int64_t x_stride, const void* up, int64_t up_stride) {
  return columns % kPack<T> == 0 && x_stride % kPack<T> == 0 && (!up || up_stride % kPack<T> == 0);
}

template <class T, class A>
void run_forward(const ActivationForward& a, cudaStream_t stream) {
  if (strides_packed<T>(a.columns, a.x_stride, a.up, a.up_stride) && aligned(a.x) && aligned(a.up) && aligned(a.y))
    forward<T, A, kPack<T>><<<grid_for(a.rows, a.columns, kPack<T>), kThreads, 0, stream>>>(a);
  else
    forward<T, A, 1><<<grid_for(a.rows, a.columns, 1), kThreads, 0, stream>>>(a);
}

template <class T, class A>
void run_backward(const ActivationBackward& a, cudaStream_t stream) {
  if (strides_packed<T>(a.columns, a.x_stride, a.up, a.up_stride) && aligned(a.x) && aligned(a.up) && aligned(a.dy) &&
      aligned(a.dx) && aligned(a.dup))
    backward<T, A, kPack<T>><<<grid_for(a.rows, a.columns, kPack<T>), kThreads, 0, stream>>>(a);
  else
    backward<T, A, 1><<<grid_for(a.rows, a.columns, 1), kThreads, 0, stream>>>(a);
}

template <class T>
void forward_typed(const ActivationForward& a, cudaStream_t stream) {
  switch (a.activation) {
    case Activation::gelu: return run_forward<T, Gelu>(a, stream);
    case Activation::gelu_tanh: return run_forward<T, GeluTanh>(a, stream);
    case Activation::silu: return run_forward<T, Silu>(a, stream);
  }
}

template <class T>
void backward_typed(const ActivationBackward& a, cudaStream_t stream) {
  switch (a.activation) {
    case Activation::gelu: return run_backward<T, Gelu>(a, stream);
    case Activation::gelu_tanh: return run_backward<T, GeluTanh>(a, stream);
    case Activation::silu: return run_backward<T, Silu>(a, stream);
  }
}

}  // namespace

void activation_forward(const ActivationForward& arguments, void* stream) {
  const ActivationForward a = flattened(arguments);
  a.type == Type::float32 ? forward_typed<float>(a, stream_of(stream)) : forward_typed<BFloat16>(a, stream_of(stream));
  check_launch("activation_forward");
}

void activation_backward(const ActivationBackward& arguments, void* stream) {
  const ActivationBackward a = flattened(arguments);
  a.type == Type::float32 ? backward_typed<float>(a, stream_of(stream))
                          : backward_typed<BFloat16>(a, stream_of(stream));
  check_launch("activation_backward");
}

}  // namespace llmtk::kernels::cuda
