#pragma once
// A tokenizer for tests: every token is the string it was added as; "<|...|>" is special.

#include <algorithm>
#include <stdexcept>

#include "text/tokenizer.h"

namespace llmtk::test {

class FakeTokenizer : public text::Tokenizer {
 public:
  text::TokenId add(const std::string& token) const {
    if (const auto id = token_to_id(token)) return *id;
    tokens_.push_back(token);
    return static_cast<text::TokenId>(tokens_.size() - 1);
  }

  size_t vocab_size() const override { return tokens_.size(); }
  text::SpecialTokens special_tokens() const override { return {}; }
  /// One token per byte.
  void encode(std::string_view text, std::vector<text::TokenId>& out, bool) const override {
    for (const char c : text) out.push_back(add(std::string(1, c)));
  }
  std::string decode(std::span<const text::TokenId> ids, bool skip_special_tokens) const override {
    std::string text;
    for (const auto id : ids)
      if (!skip_special_tokens || !is_special(id)) text += tokens_.at(id);
    return text;
  }
  std::string token_bytes(text::TokenId id) const override { return tokens_.at(id); }
  std::optional<text::TokenId> token_to_id(std::string_view token) const override {
    const auto it = std::find(tokens_.begin(), tokens_.end(), token);
    if (it == tokens_.end()) return std::nullopt;
    return static_cast<text::TokenId>(it - tokens_.begin());
  }
  std::string id_to_token(text::TokenId id) const override { return tokens_.at(id); }
  bool is_special(text::TokenId id) const override {
    return tokens_.at(id).starts_with("<|") && tokens_.at(id).ends_with("|>");
  }
  void save(const std::filesystem::path&) const override { throw std::logic_error("not for saving"); }

 private:
  mutable std::vector<std::string> tokens_;
};

}  // namespace llmtk::test
