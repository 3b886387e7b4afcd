#pragma once
// How byte-level tokenizers in GGUF files cut a text into words: by the name of a pre-tokenizer that llama.cpp knows
// (tokenizer.ggml.pre). Here each name with what tokenizer.json says for it.

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::text {

/// Rules that cut one after another, each what the one before left whole.
struct GgufPreTokenizer {
  std::string_view name;
  std::vector<std::string> rules;  ///< regular expressions, or kDigits
  bool nfc = false;                ///< the published tokenizer.json normalizes, although llama.cpp does not
  bool ignore_merges = false;
  bool add_bos = false;  ///< where the file does not say
};

/// Every numeric character by itself.
inline constexpr std::string_view kDigits = "Digits";

/// In order of preference, for those that want a name for some rules.
std::span<const GgufPreTokenizer> gguf_pre_tokenizers();
/// Null for a name that this program does not know.
const GgufPreTokenizer* find_gguf_pre_tokenizer(std::string_view name);

/// tokenizer.json's `pre_tokenizer` for the rules, bytes spelled at the end.
nlohmann::ordered_json pre_tokenizer_json(const GgufPreTokenizer& pre_tokenizer);
/// The rules of a tokenizer.json's `pre_tokenizer`; empty where it holds another step than those above, or does not end
/// in ByteLevel.
std::vector<std::string> rules_of(const nlohmann::json& pre_tokenizer);

}  // namespace llmtk::text
