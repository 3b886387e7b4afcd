#pragma once
// The processor, without LibTorch.

#include <cstdint>

namespace llmtk::kernels::cpu {

/// The widest instruction set among those compiled in that this processor has.
const char* target();

/// What oneDNN asks of a processor before it multiplies bfloat16 natively: AVX-512 (BW, VL, DQ), with or without its
/// own bfloat16 instructions.
bool has_bfloat16_products();

/// Memory of this thread's for `size` floats, which only ever grows: for one kernel at a time.
float* scratch(int64_t size);

}  // namespace llmtk::kernels::cpu
