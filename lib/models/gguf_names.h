#pragma once
// How the architectures of GGUF call the tensors that Hugging Face's models have, and how their numbers lie.

#include <span>
#include <string>
#include <string_view>

namespace llmtk::models {

/// What a tensor in a GGUF file is, against Hugging Face's.
enum class GgufLayout {
  same,
  query_rows,  ///< the two halves of each query head's rows interleaved (Llama's rotary pairs)
  key_rows,    ///< of each key head's
  plus_one,    ///< Gemma's norms: the file has w + 1
  transposed,  ///< GPT-2's Conv1D: the file has [out, in]
};

/// Names without ".weight" or ".bias"; "#" stands for the number of the layer.
struct GgufName {
  std::string_view gguf, hf;
  GgufLayout layout = GgufLayout::same;
};

struct GgufArchitecture {
  std::string_view name;        ///< general.architecture
  std::string_view model_type;  ///< Hugging Face's
  std::span<const GgufName> names;
};

std::span<const GgufArchitecture> gguf_architectures();
/// Null for an architecture that this program does not know.
const GgufArchitecture* find_gguf_architecture(std::string_view name);
/// The architecture that a model of this type is written as; null where there is none.
const GgufArchitecture* gguf_architecture_of(std::string_view model_type);

/// Where a parameter stands in a GGUF file.
struct GgufPlace {
  std::string name;
  GgufLayout layout = GgufLayout::same;
};
/// `parameter`: as named_parameters() calls it. An empty name: the architecture has no such tensor.
GgufPlace gguf_place(const GgufArchitecture& architecture, std::string_view parameter);

}  // namespace llmtk::models
