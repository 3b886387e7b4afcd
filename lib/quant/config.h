#pragma once
// What a user may say about a quantized base, in the section `quantization`. Names and defaults are those of
// transformers' BitsAndBytesConfig; where a default differs, the reason stands beside it.

#include <c10/core/ScalarType.h>

#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "kernels/quantized_impl.h"

namespace llmtk::quant {

struct QuantizationConfig {
  bool load_in_4bit = false;
  bool load_in_8bit = false;
  std::string bnb_4bit_quant_type = "nf4";  // transformers: fp4, of the same size and less exact (QLoRA, table 2)
  bool bnb_4bit_use_double_quant = false;
  std::string bnb_4bit_compute_dtype = "float32";
  std::optional<std::vector<std::string>> llm_int8_skip_modules;

  template <class V>
  void fields(V& v) {
    v("load_in_4bit", load_in_4bit, "Keep the matrices in 4 bits (QLoRA): frozen, an eighth of float32");
    v("load_in_8bit", load_in_8bit, "Keep the matrices in 8 bits: frozen, a quarter of float32");
    v("bnb_4bit_quant_type", bnb_4bit_quant_type, "4 bits: nf4 (for weights that are normally distributed) or fp4",
      config::one_of({"nf4", "fp4"}));
    v("bnb_4bit_use_double_quant", bnb_4bit_use_double_quant,
      "4 bits: quantize the scales too; saves 0.4 bits per weight");
    v("bnb_4bit_compute_dtype", bnb_4bit_compute_dtype, "4 bits: what products are computed in",
      config::one_of({"float32", "bfloat16"}));
    v("llm_int8_skip_modules", llm_int8_skip_modules,
      "Modules that stay as they are, in 4 bits too: names, ends of names, or regular expressions for their beginning; "
      "default: the "
      "head, and what transformers keeps in float32");
  }
  /// Settings that have no effect with the others are refused.
  void validate(config::Problems& problems) const;

  bool enabled() const { return load_in_4bit || load_in_8bit; }
  kernels::QuantType type() const;
  /// Of 4 bits; 8 bits compute in the dtype of what comes in.
  std::optional<c10::ScalarType> compute_dtype() const;
};

}  // namespace llmtk::quant
