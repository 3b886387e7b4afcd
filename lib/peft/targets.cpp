#include "peft/targets.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <charconv>

#include "core/error.h"

namespace llmtk::peft {
namespace {

bool is_path_or_end(const std::string& path, const std::string& name) {
  return path == name || path.ends_with("." + name);
}

bool names_match(const std::vector<std::string>& names, const std::string& path) {
  return std::ranges::any_of(names, [&](const std::string& name) { return is_path_or_end(path, name); });
}

std::vector<Pattern> patterns_of(const std::vector<std::string>& names, const char* before, const char* after) {
  std::vector<Pattern> patterns;
  for (const std::string& name : names) patterns.emplace_back(before + name + after);
  return patterns;
}

}  // namespace

Pattern::Pattern(const std::string& expression) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(), PCRE2_UTF, &error,
                             &offset, nullptr);
  if (!code) {
    PCRE2_UCHAR text[256];
    pcre2_get_error_message(error, text, sizeof text);
    throw Error(Exit::usage, {.what = "a pattern of module names is not a regular expression",
                              .got = "'" + expression + "'",
                              .expected = reinterpret_cast<const char*>(text)});
  }
  code_ = std::shared_ptr<void>(code, [](void* p) { pcre2_code_free(static_cast<pcre2_code*>(p)); });
}

namespace {

/// f(number of groups, their offsets) of a match at the text's beginning; false where there is none.
template <class F>
bool match_at_start(void* compiled, std::string_view text, uint32_t options, F f) {
  auto* code = static_cast<pcre2_code*>(compiled);
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> found(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  const int count = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                PCRE2_ANCHORED | options, found.get(), nullptr);
  if (count < 0 && count != PCRE2_ERROR_NOMATCH)
    throw Error(Exit::usage, {.what = "a pattern of module names takes too long", .got = std::string(text)});
  if (count < 0) return false;
  f(code, found.get());
  return true;
}

}  // namespace

bool Pattern::matches(std::string_view text) const {
  return match_at_start(code_.get(), text, PCRE2_ENDANCHORED, [](auto*, auto*) {});
}

std::optional<int64_t> Pattern::index_at_start(std::string_view text) const {
  std::optional<int64_t> index;
  match_at_start(code_.get(), text, 0, [&](pcre2_code*, pcre2_match_data* found) {
    PCRE2_UCHAR* group = nullptr;
    PCRE2_SIZE length = 0;
    if (pcre2_substring_get_byname(found, reinterpret_cast<PCRE2_SPTR>("idx"), &group, &length) != 0) return;
    const char* begin = reinterpret_cast<const char*>(group);
    int64_t number = 0;
    if (std::from_chars(begin, begin + length, number).ec == std::errc()) index = number;
    pcre2_substring_free(group);
  });
  return index;
}

TargetFilter::TargetFilter(const LoraConfig& config, const ModuleNames& targets,
                           const std::vector<std::string>& modules_to_save)
    : targets_(targets),
      excluded_(*ModuleNames::from_json(config.exclude_modules)),
      saved_(patterns_of(modules_to_save, "(^|.*\\.)", "($|\\..*)")),
      layers_(config.layers_to_transform) {
  if (targets_.pattern) pattern_.emplace(*targets_.pattern);
  if (excluded_.pattern) excluded_pattern_.emplace(*excluded_.pattern);
  layer_patterns_ = config.layers_pattern.empty()
                        ? std::vector{Pattern(".*?\\.[^.]*\\.(?P<idx>\\d+)\\.")}
                        : patterns_of(config.layers_pattern, "(?:^|.*?\\.)", "\\.(?P<idx>\\d+)\\.");
}

bool TargetFilter::is_excluded(const std::string& path) const {
  if (excluded_pattern_ ? excluded_pattern_->matches(path) : names_match(excluded_.names, path)) return true;
  return std::ranges::any_of(saved_, [&](const Pattern& pattern) { return pattern.matches(path); });
}

bool TargetFilter::is_in_layers(const std::string& path) const {
  if (layers_.empty()) return true;
  for (const Pattern& pattern : layer_patterns_)
    if (const auto index = pattern.index_at_start(path)) return std::ranges::find(layers_, *index) != layers_.end();
  return false;
}

bool TargetFilter::operator()(const std::string& path) const {
  if (is_excluded(path)) return false;
  if (pattern_) return pattern_->matches(path);
  return names_match(targets_.names, path) && is_in_layers(path);
}

std::vector<std::string> default_targets(const std::string& model_type) {
  // peft's TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.
  static const std::map<std::string, std::vector<std::string>> kTargets = {
      {"bert", {"query", "value"}},          {"gemma2", {"q_proj", "v_proj"}},
      {"gemma3_text", {"q_proj", "v_proj"}}, {"gpt2", {"c_attn"}},
      {"gpt_neox", {"query_key_value"}},     {"llama", {"q_proj", "v_proj"}},
      {"mistral", {"q_proj", "v_proj"}},     {"opt", {"q_proj", "v_proj"}},
      {"qwen2", {"q_proj", "v_proj"}},       {"qwen3", {"q_proj", "v_proj"}},
      {"roberta", {"query", "value"}},       {"t5", {"q", "v"}},
      {"xlm-roberta", {"query", "value"}},
  };
  const auto found = kTargets.find(model_type);
  return found == kTargets.end() ? std::vector<std::string>() : found->second;
}

}  // namespace llmtk::peft
