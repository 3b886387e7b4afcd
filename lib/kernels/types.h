#pragma once
// How the kernels' CPU and CUDA halves are told about memory, without LibTorch.

#include <cstdint>

namespace llmtk::kernels {

/// What a pointer points to.
enum class Type : uint8_t { float32, bfloat16 };

inline constexpr int64_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

/// A bfloat16 as its bits.
struct BFloat16 {
  uint16_t bits;
};

}  // namespace llmtk::kernels
