#pragma once
// Which modules a config means, as peft decides it (tuners_utils.check_target_module_exists, get_pattern_key).

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"
#include "peft/lora_config.h"

namespace llmtk::peft {

/// A regular expression as Python's re knows it (PCRE2). Throws Error(usage) naming the expression.
class Pattern {
 public:
  explicit Pattern(const std::string& expression);
  /// Whether it matches the whole text.
  bool matches(std::string_view text) const;
  /// What the group `idx` holds where the expression matches the text's beginning: a number; nullopt where it does not.
  std::optional<int64_t> index_at_start(std::string_view text) const;

 private:
  std::shared_ptr<void> code_;
};

/// The value of the first key, in the map's order, for which (.*\.)?(key) matches the path; else `otherwise`.
template <class T>
T value_for(const std::map<std::string, T>& patterns, const std::string& path, T otherwise) {
  for (const auto& [key, value] : patterns)
    if (Pattern("(.*\\.)?(" + key + ")").matches(path)) return value;
  return otherwise;
}

/// Which paths get a branch.
class TargetFilter {
 public:
  /// `targets`: a pattern or names, resolved (not "all-linear").
  TargetFilter(const LoraConfig& config, const ModuleNames& targets, const std::vector<std::string>& modules_to_save);
  bool operator()(const std::string& path) const;

 private:
  bool is_excluded(const std::string& path) const;
  bool is_in_layers(const std::string& path) const;

  ModuleNames targets_, excluded_;
  std::optional<Pattern> pattern_, excluded_pattern_;
  std::vector<Pattern> saved_, layer_patterns_;
  std::vector<int64_t> layers_;
};

/// peft's targets where the config names none; empty where it has none for this family.
std::vector<std::string> default_targets(const std::string& model_type);

}  // namespace llmtk::peft
