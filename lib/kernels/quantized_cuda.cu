#include "kernels/device.cuh"
#include "kernels/quantized_impl.h"

namespace llmtk::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// The 16 values of a four-bit type, as a kernel's argument.
struct Values {
  float at[16];
};

__device__ inline float scale_of(const Packed& p, int64_t block) {
  if (p.scales) return p.scales[block];
  // Rounded twice, as on the CPU: no fused multiply-add.
  return __fadd_rn(__fmul_rn(p.scale_map[p.scale_codes[block]], p.scale_scales[block / kQuantScaleBlock]),
                   p.scale_offset);
}

template <class T>
__global__ void __launch_bounds__(kThreads) unpack(Packed p, Rectangle r, Values values, T* out) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = values.at[threadIdx.x];
  __syncthreads();
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t row = blockIdx.y; row < r.rows; row += gridDim.y)
    for (int64_t column = first; column < r.columns; column += step) {
      const int64_t i = (r.row + row) * p.K + r.column + column;
      float value;
      if (p.type == QuantType::int8) {
        value = static_cast<const int8_t*>(p.codes)[i] * p.scales[r.row + row];
      } else {
        const uint8_t pair = static_cast<const uint8_t*>(p.codes)[i / 2];
        value = table[i % 2 ? pair & 15 : pair >> 4] * scale_of(p, i / kQuantBlock);
      }
      out[row * r.columns + column] = to<T>(value);
    }
}

template <class T>
void launch(const Packed& p, const Rectangle& r, void* out, void* stream) {
  Values values;
  std::copy_n(values_of(p.type).data(), 16, values.at);
  const dim3 grid(static_cast<unsigned>(blocks_for(r.columns, kThreads)),
                  static_cast<unsigned>(std::min<int64_t>(r.rows, 65535)));
  unpack<T><<<grid, kThreads, 0, stream_of(stream)>>>(p, r, values, static_cast<T*>(out));
  check_launch("unpack");
}

}  // namespace

void unpack(const Packed& p, const Rectangle& r, Type stored, void* out, void* stream) {
  if (r.rows == 0 || r.columns == 0) return;
  stored == Type::float32 ? launch<float>(p, r, out, stream) : launch<BFloat16>(p, r, out, stream);
}

}  // namespace llmtk::kernels::cuda
