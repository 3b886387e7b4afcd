#pragma once
// The work of `llmtk quantize`: from a model to a folder of quantized matrices.

#include <nlohmann/json.hpp>

#include "quantize_config.h"

namespace llmtk {

/// Writes output_dir and returns the answer: what became of each matrix, sizes, and what it cost. The folder appears
/// whole or not at all; what a stopped run has done lies in OUTPUT.partial, and the same command goes on from there.
/// Throws Error(stopped_saved) on SIGTERM and SIGINT. exit_code: 7 where a bound of the receipt is missed.
nlohmann::ordered_json quantize(const QuantizeConfig& config, int& exit_code);

/// Checks config, model, texts, memory and disk, writes nothing and says what would become of the matrices.
nlohmann::ordered_json plan_quantization(const QuantizeConfig& config);

}  // namespace llmtk
