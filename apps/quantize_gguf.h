#pragma once
// GGUF files in few bits.

#include <nlohmann/json.hpp>

#include "quantize_receipt.h"

namespace llmtk {

/// Writes output_dir, a .gguf file in the type that `scheme` names, with the source's vocabulary. Returns the answer as
/// quantize() begins it.
nlohmann::ordered_json quantize_to_gguf(const QuantizeConfig& config, const QuantizeSource& source);

}  // namespace llmtk
