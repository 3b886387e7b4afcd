#pragma once
// Writing GGUF files, for `convert` and `quantize`.

#include <nlohmann/json.hpp>
#include <string>

#include "io/gguf.h"
#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk {

/// "auto" (as stored), F32, F16, BF16, Q8_0, Q4_0 or Q4_1, in any case. Throws Error(usage).
io::GgufType parse_gguf_type(const std::string& text, c10::ScalarType stored);

struct GgufTarget {
  fs::path source, target;
  io::GgufType type;
  std::string name;                            ///< general.name; empty: the source's
  const text::Tokenizer* tokenizer = nullptr;  ///< null: no vocabulary
};
/// Writes a file that llama.cpp runs. Returns type, tensors, parameters, bytes, and what rounding cost: largest_error,
/// relative_error, worst_tensor.
nlohmann::ordered_json write_gguf(const nn::Model& model, const GgufTarget& target);

}  // namespace llmtk
