#pragma once
// A model whose matrices are kept in four or eight bits.
//
//   auto model = models::load_model(path, {.map = true});  // matrices lie in the files: nothing is copied
//   quant::quantize_linears(*model, config, device);       // one matrix at a time is read and packed
//   quant::own_parameters(*model, dtype, device);          // what is left (tables, norms, biases, the head)
//
// so the model never stands in memory in float32. An adapter is then put on it as on any other.

#include <string>

#include "nn/model.h"
#include "quant/config.h"

namespace llmtk::quant {

/// What quantizing did. Bytes are those of the quantized matrices alone, before as they were stored.
struct QuantizationReport {
  int64_t matrices = 0, weights = 0;
  int64_t bytes_before = 0, bytes_after = 0;
  std::vector<std::string> skipped;  ///< linear layers that stay as they are, by path
  std::string text() const;          ///< one line for the log
};

/// Packs the weight of every nn::Linear but those to skip (config.h); biases stay. Storage lies on `device`; the rest
/// of the model stays where it is. GPT-2's weights are transposed first, as transformers does. Skipped without a
/// setting: the head that scores tokens or classes (a fresh one has to learn), one that is tied to a table, and T5's
/// `wo`, which transformers keeps in float32. A list in the config replaces these but for tied heads. Throws
/// Error(usage) for a name in the list that means no layer, and where nothing is left to quantize; Error(file) for a
/// weight with NaN or infinity, by name.
QuantizationReport quantize_linears(nn::Model& model, const QuantizationConfig& config, c10::Device device = c10::kCPU);

/// Moves the remaining parameters and buffers into memory of their own on `device`, floating ones as `dtype`: what was
/// mapped from files is then writable, and the files are let go.
void own_parameters(nn::Model& model, c10::ScalarType dtype, c10::Device device = c10::kCPU);

}  // namespace llmtk::quant
