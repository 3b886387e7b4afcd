#include "peft/lora_config.h"

#include <charconv>
#include <cmath>

#include "peft/targets.h"

namespace llmtk::peft {

std::optional<ModuleNames> ModuleNames::from_json(const io::Json& json) {
  ModuleNames modules{.given = !json.is_null()};
  if (json.is_null()) return modules;
  if (json.is_string()) {
    modules.pattern = json.get<std::string>();
    return modules;
  }
  if (!json.is_array()) return std::nullopt;
  for (const io::Json& name : json) {
    if (!name.is_string()) return std::nullopt;
    modules.names.push_back(name.get<std::string>());
  }
  return modules;
}

std::optional<int64_t> LoraConfig::pissa_iterations() const {
  constexpr std::string_view kPrefix = "pissa_niter_";
  if (!init_lora_weights.starts_with(kPrefix)) return std::nullopt;
  int64_t n = 0;
  const char *begin = init_lora_weights.data() + kPrefix.size(),
             *end = init_lora_weights.data() + init_lora_weights.size();
  const auto [stop, error] = std::from_chars(begin, end, n);
  return error == std::errc() && stop == end && n >= 0 ? std::optional(n) : std::nullopt;
}

void LoraConfig::validate(config::Problems& problems) const {
  const auto targets = ModuleNames::from_json(target_modules);
  constexpr const char* kModules = "a list of names, or one regular expression";
  if (!targets || (targets->given && !targets->pattern && targets->names.empty()))
    problems.add("target_modules", {.what = "no modules", .got = target_modules.dump(), .expected = kModules});
  if (!ModuleNames::from_json(exclude_modules))
    problems.add("exclude_modules", {.what = "no modules", .got = exclude_modules.dump(), .expected = kModules});
  if (targets && targets->pattern && !layers_to_transform.empty())
    problems.add("layers_to_transform", {.what = "has no influence where target_modules is one text",
                                         .hint = "put the layers' numbers into the expression"});
  if (!layers_pattern.empty() && layers_to_transform.empty())
    problems.add("layers_pattern", {.what = "has no influence without layers_to_transform"});
  const bool known = init_lora_weights == "true" || init_lora_weights == "false" || init_lora_weights == "gaussian" ||
                     init_lora_weights == "pissa" || pissa_iterations();
  if (!known)
    problems.add("init_lora_weights", {.what = "unknown start",
                                       .got = "'" + init_lora_weights + "'",
                                       .expected = "true, false, gaussian, pissa or pissa_niter_N"});
  if (loraplus_lr_embedding && !loraplus_lr_ratio)
    problems.add("loraplus_lr_embedding", {.what = "has no influence without loraplus_lr_ratio"});
}

int64_t LoraConfig::rank_of(const std::string& path) const { return value_for(rank_pattern, path, r); }
double LoraConfig::alpha_of(const std::string& path) const { return value_for(alpha_pattern, path, lora_alpha); }

double LoraConfig::scaling_of(const std::string& path) const {
  const auto rank = static_cast<double>(rank_of(path));
  return alpha_of(path) / (use_rslora ? std::sqrt(rank) : rank);
}

}  // namespace llmtk::peft
