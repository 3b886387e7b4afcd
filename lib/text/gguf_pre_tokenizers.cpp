#include "text/gguf_pre_tokenizers.h"

#include <algorithm>

namespace llmtk::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

const std::string kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const std::string kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kQwen2 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
                           R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
// Words of capitals and small letters, as o200k has them; Tekken knows no contractions and takes digits one by one.
const std::string kTekken = R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
                            R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
                            R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// What llama.cpp does for "default", and for files that name none.
const std::vector<std::string> kDefaultRules = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"};

}  // namespace

std::span<const GgufPreTokenizer> gguf_pre_tokenizers() {
  static const std::string digits(kDigits);
  static const std::vector<GgufPreTokenizer> table = {
      {.name = "gpt-2", .rules = {kGpt2}},
      {.name = "smollm", .rules = {digits, kGpt2}},
      {.name = "llama-bpe", .rules = {kLlama3}, .ignore_merges = true, .add_bos = true},
      {.name = "qwen2", .rules = {kQwen2}, .nfc = true},
      {.name = "dbrx", .rules = {kLlama3}},
      {.name = "tekken", .rules = {kTekken}, .ignore_merges = true, .add_bos = true},
      {.name = "gpt-4o", .rules = {kO200k}},
      {.name = "default", .rules = kDefaultRules},
      // Other names for the same.
      {.name = "llama3", .rules = {kLlama3}, .ignore_merges = true, .add_bos = true},
      {.name = "llama-v3", .rules = {kLlama3}, .ignore_merges = true, .add_bos = true},
      {.name = "falcon3", .rules = {kLlama3}, .ignore_merges = true, .add_bos = true},
      {.name = "smaug-bpe", .rules = {kLlama3}},
      {.name = "glm4", .rules = {kLlama3}},
      {.name = "chatglm-bpe", .rules = {kLlama3}},
      {.name = "deepseek-r1-qwen", .rules = {kQwen2}},
      {.name = "stablelm2", .rules = {kQwen2}, .nfc = true},
      {.name = "megrez", .rules = {kQwen2}},
      {.name = "hunyuan", .rules = {kQwen2}},
      {.name = "llama4", .rules = {kO200k}},
      {.name = "phi-2", .rules = {kGpt2}},
      {.name = "mpt", .rules = {kGpt2}},
      {.name = "olmo", .rules = {kGpt2}},
      {.name = "exaone4", .rules = {kGpt2}},
      {.name = "starcoder", .rules = {digits, kGpt2}},
      {.name = "refact", .rules = {digits, kGpt2}},
      {.name = "command-r", .rules = {digits, kGpt2}},
      {.name = "codeshell", .rules = {digits, kGpt2}},
      {.name = "exaone", .rules = {digits, kGpt2}},
      {.name = "minerva-7b", .rules = {digits, kGpt2}},
  };
  return table;
}

const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name) {
  const auto table = gguf_pre_tokenizers();
  const auto found = std::ranges::find(table, name, &GgufPreTokenizer::name);
  return found == table.end() ? nullptr : &*found;
}

OrderedJson pre_tokenizer_json(const GgufPreTokenizer& pre_tokenizer) {
  OrderedJson steps = OrderedJson::array();
  const bool gpt2_last = pre_tokenizer.rules.back() == kGpt2;
  const size_t splits = pre_tokenizer.rules.size() - (gpt2_last ? 1 : 0);
  for (size_t i = 0; i < splits; ++i) {
    const std::string& rule = pre_tokenizer.rules[i];
    if (rule == kDigits)
      steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    else
      steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", rule}}}, {"behavior", "Isolated"}, {"invert", false}});
  }
  // ByteLevel brings GPT-2's pattern with it.
  const OrderedJson bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", gpt2_last}};
  if (steps.empty()) return bytes;
  steps.push_back(bytes);
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

std::vector<std::string> rules_of(const nlohmann::json& pre_tokenizer) {
  using nlohmann::json;
  if (!pre_tokenizer.is_object()) return {};
  const std::string type = pre_tokenizer.value("type", "");
  const json steps =
      type == "Sequence" ? pre_tokenizer.value("pretokenizers", json::array()) : json::array({pre_tokenizer});
  std::vector<std::string> rules;
  for (const json& step : steps) {
    const std::string kind = step.is_object() ? step.value("type", "") : "";
    const bool last = &step == &steps.back();
    if (last != (kind == "ByteLevel")) return {};
    if (kind == "ByteLevel") {
      if (step.value("add_prefix_space", true)) return {};
      if (step.value("use_regex", true)) rules.push_back(kGpt2);
    } else if (kind == "Digits" && step.value("individual_digits", false)) {
      rules.emplace_back(kDigits);
    } else if (kind == "Split" && step.contains("pattern") && step["pattern"].contains("Regex")) {
      // A pattern that covers every text cuts alike whether its matches or what lies between them is named.
      const std::string behavior = step.value("behavior", "");
      const bool invert = step.value("invert", false);
      if (!(behavior == "Isolated" && !invert) && !(behavior == "Removed" && invert)) return {};
      rules.push_back(step["pattern"]["Regex"].get<std::string>());
    } else {
      return {};
    }
  }
  return rules;
}

}  // namespace llmtk::text
