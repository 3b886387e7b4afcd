#pragma once
// Models in GGUF files: opening one as load_model() opens a folder, and writing one that llama.cpp runs.

#include <cstdint>
#include <memory>
#include <string>

#include "io/gguf.h"
#include "models/registry.h"
#include "nn/model.h"

namespace llmtk::models {

/// Opens a GGUF file. Without options.dtype the model has the type of most of its numbers where that is float16 or
/// bfloat16, else float32, which holds every quantized number exactly. Tensors are decoded one by one; with options.map
/// those that lie in the file as they are asked for are not copied. Every parameter must be in the file with its shape,
/// and nothing else; Error(file) names what is missing, extra or misshapen.
std::shared_ptr<nn::Model> load_gguf(const fs::path& path, const LoadOptions& options = {});

struct GgufReceipt {
  int64_t tensors = 0, parameters = 0;
  uint64_t bytes = 0;         ///< of the file
  double largest_error = 0;   ///< largest difference of a written number from the model's
  double relative_error = 0;  ///< the same as a share of the largest magnitude in that tensor
  std::string worst_tensor;   ///< where it is; empty when nothing differs
};

/// Writes the model in the type F32, F16, BF16, Q8_0, Q4_0 or Q4_1; vectors and tables of positions stay F32, matrices whose
/// rows are not multiples of 32 become F16 instead of what has blocks, and the token table and the head, where rounding costs
/// most, Q8_0 instead of Q4_0 and Q4_1. `vocabulary`: text::gguf_vocabulary() or empty. Throws
/// Error(file) for a model that GGUF cannot hold, and for numbers that are not finite.
GgufReceipt save_gguf(const nn::Model& model, const fs::path& path, io::GgufType type, const std::string& name,
                      const io::GgufMetadata& vocabulary);

}  // namespace llmtk::models
