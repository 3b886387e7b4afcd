#pragma once
// How a branch begins.

#include <cstdint>
#include <string>

#include "peft/adapter.h"

namespace llmtk::peft {

/// Fills A, B and magnitude as peft's init_lora_weights says, from the seed and the layer's path. PiSSA replaces the
/// layer's matrix by what A and B leave of it and keeps them (Lora::keep_start). Throws Error(usage) where PiSSA would
/// have to change a quantized matrix.
void initialize(LoraTarget& target, const LoraConfig& config, uint64_t seed);

}  // namespace llmtk::peft
