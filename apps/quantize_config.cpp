#include "quantize_config.h"

#include <algorithm>

#include "core/error.h"
#include "io/gguf.h"

namespace llmtk {

const std::vector<GgufScheme>& gguf_schemes() {
  static const std::vector<GgufScheme> schemes = {
      {"Q8_0", "GGUF: 8 bits, a scale per 32 weights"},
      {"Q4_0", "GGUF: 4 bits, a scale per 32 weights"},
      {"Q4_1", "GGUF: 4 bits, a scale and a smallest number per 32 weights"},
  };
  return schemes;
}

std::string QuantizeConfig::all_schemes() {
  std::string all;
  for (const auto& scheme : quant::scheme_names()) all += std::string(all.empty() ? "" : ", ") + scheme.name;
  for (const auto& scheme : gguf_schemes()) all += std::string(", ") + scheme.name;
  return all;
}

bool QuantizeConfig::to_gguf() const {
  return std::ranges::any_of(gguf_schemes(), [&](const GgufScheme& s) { return scheme == s.name; });
}

std::vector<quant::SchemeGroup> QuantizeConfig::scheme_groups() const {
  std::vector<quant::SchemeGroup> all;
  for (const QuantizeGroupConfig& group : groups) {
    all.push_back({quant::scheme_named(group.scheme, group.group_size), {}});
    for (const std::string& target : group.targets) all.back().targets.emplace_back(target);
  }
  all.push_back({quant::scheme_named(scheme, group_size), {quant::Pattern("Linear")}});
  return all;
}

void QuantizeConfig::validate(config::Problems& problems) const {
  const auto idle = [&](const char* key, bool set, const std::string& with) {
    if (set) problems.add(key, {.what = "has no effect with " + with, .hint = "leave it out"});
  };
  const auto try_scheme = [&](const std::string& key, const std::string& name, int64_t size) {
    try {
      quant::scheme_named(name, size);
    } catch (const Error& error) {
      Error::Parts parts = error.parts();
      if (key == "scheme" && parts.what == "unknown scheme") parts.expected = all_schemes();
      problems.add(key, parts);
    }
  };
  const bool is_file = io::is_gguf_path(output_dir);
  if (to_gguf() && !is_file)
    problems.add("output_dir", {.what = scheme + " is a type of GGUF files",
                                .got = "'" + output_dir + "'",
                                .expected = "a name that ends with .gguf"});
  if (!to_gguf() && is_file)
    problems.add("output_dir", {.what = scheme + " is kept in a folder, not in a GGUF file",
                                .expected = "a folder, or the scheme Q8_0, Q4_0 or Q4_1"});
  if (to_gguf()) {
    const std::string with = "the GGUF type " + scheme;
    idle("group_size", group_size != 0, with);
    idle("method", method != "rtn", with);
    idle("ignore", ignore.has_value(), with);
    idle("groups", !groups.empty(), with);
    idle("model.dtype", model.dtype != "auto", with);
  } else {
    try_scheme("scheme", scheme, group_size);
    for (size_t i = 0; i < groups.size(); ++i)
      try_scheme("groups." + std::to_string(i) + ".scheme", groups[i].scheme, groups[i].group_size);
  }
  const GptqConfig defaults;
  const CalibrationConfig calibration_defaults;
  if (method == "gptq" && calibration.files.empty())
    problems.add("calibration.files", {.what = "gptq needs text", .hint = "give --calibration FILE"});
  if (method == "gptq" && scheme == "NF4")
    problems.add("method", {.what = "gptq has no effect with NF4", .expected = "rtn"});
  if (method == "rtn") {
    idle("calibration.files", !calibration.files.empty(), "method: rtn");
    idle("calibration.num_samples", calibration.num_samples != calibration_defaults.num_samples, "method: rtn");
    idle("calibration.max_length", calibration.max_length != calibration_defaults.max_length, "method: rtn");
    idle("gptq.damping", gptq.damping != defaults.damping, "method: rtn");
    idle("gptq.block_size", gptq.block_size != defaults.block_size, "method: rtn");
    idle("gptq.desc_act", gptq.desc_act, "method: rtn");
  }
  if (method == "rtn" && receipt.text.empty() && receipt.max_tokens != ReceiptConfig().max_tokens)
    problems.add("receipt.max_tokens", {.what = "has no effect without a text", .hint = "give --text FILE"});
  if (receipt.max_ppl_increase && receipt.text.empty() && method == "rtn")
    problems.add("receipt.max_ppl_increase", {.what = "perplexity needs a text", .hint = "give --text FILE"});
}

}  // namespace llmtk
