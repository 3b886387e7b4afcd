#pragma once
// Which implementation the kernels run.

#include <ATen/core/Tensor.h>

namespace llmtk::kernels {

enum class Backend {
  automatic,  ///< the fused CPU or CUDA kernel where there is one for the tensors' dtype, else the reference
  reference,  ///< the plain ATen reference everywhere: slow, simple, for debugging and for tests
};

/// Process-wide. Starts as LLMTK_KERNELS=reference in the environment says, else automatic.
void set_backend(Backend backend);
Backend backend();

/// The instruction set that the CPU kernels use on this processor: "AVX2", "AVX3" (AVX-512).
const char* cpu_target();

/// Whether tensors of this dtype and device have fused kernels (float32 and bfloat16 on CPU, and on CUDA where it was
/// compiled in) and the backend is automatic.
bool use_fused(const at::Tensor& tensor);

/// True where LibTorch multiplies bfloat16 matrices with the processor's own instructions. Elsewhere (AVX2 only) its
/// fallback is some eight times slower than float32, and kernels::linear goes through float32.
bool fast_bfloat16_products();

}  // namespace llmtk::kernels
