#include "quant/config.h"

#include "core/device.h"

namespace llmtk::quant {

void QuantizationConfig::validate(config::Problems& problems) const {
  const QuantizationConfig defaults;
  if (load_in_4bit && load_in_8bit)
    problems.add("load_in_8bit", {.what = "given together with load_in_4bit", .expected = "one of the two"});
  const auto idle = [&](const char* key, bool set, const char* without) {
    if (set) problems.add(key, {.what = std::string("has no effect without ") + without, .hint = "leave it out"});
  };
  idle("bnb_4bit_quant_type", !load_in_4bit && bnb_4bit_quant_type != defaults.bnb_4bit_quant_type, "load_in_4bit");
  idle("bnb_4bit_use_double_quant", !load_in_4bit && bnb_4bit_use_double_quant, "load_in_4bit");
  idle("bnb_4bit_compute_dtype", !load_in_4bit && bnb_4bit_compute_dtype != defaults.bnb_4bit_compute_dtype,
       "load_in_4bit");
  idle("llm_int8_skip_modules", !enabled() && llm_int8_skip_modules.has_value(), "load_in_4bit or load_in_8bit");
}

kernels::QuantType QuantizationConfig::type() const {
  if (load_in_8bit) return kernels::QuantType::int8;
  return bnb_4bit_quant_type == "fp4" ? kernels::QuantType::fp4 : kernels::QuantType::nf4;
}

std::optional<c10::ScalarType> QuantizationConfig::compute_dtype() const {
  if (load_in_8bit) return std::nullopt;
  return parse_dtype(bnb_4bit_compute_dtype);
}

}  // namespace llmtk::quant
