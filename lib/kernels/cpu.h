#pragma once
// The processor, without LibTorch.

namespace llmtk::kernels::cpu {

/// The widest instruction set among those compiled in that this processor has.
const char* target();

/// What oneDNN asks of a processor before it multiplies bfloat16 natively: AVX-512 (BW, VL, DQ), with or without its
/// own bfloat16 instructions.
bool has_bfloat16_products();

}  // namespace llmtk::kernels::cpu
