#pragma once
// A tokenizer whose ids are bytes, and made-up text.

#include <filesystem>
#include <random>
#include <string>

#include "core/file.h"
#include "test.h"
#include "text/tokenizer.h"

namespace llmtk::test {

/// id = byte + offset; eos = offset + 256; bos, before a text with special tokens, = offset + 257. With a large offset
/// the ids do not fit in 16 bits.
class ByteTokenizer : public text::Tokenizer {
 public:
  explicit ByteTokenizer(int32_t offset = 0, bool with_eos = true, bool with_bos = false)
      : offset_(offset), with_eos_(with_eos), with_bos_(with_bos) {}
  size_t vocab_size() const override { return static_cast<size_t>(offset_) + 257 + with_bos_; }
  text::SpecialTokens special_tokens() const override {
    return {.bos = with_bos_ ? offset_ + 257 : -1, .eos = with_eos_ ? offset_ + 256 : -1};
  }
  std::vector<text::TokenId> prefix() const override {
    return with_bos_ ? std::vector<text::TokenId>{offset_ + 257} : std::vector<text::TokenId>{};
  }
  void encode(std::string_view text, std::vector<text::TokenId>& out, bool add_special_tokens) const override {
    if (add_special_tokens && with_bos_) out.push_back(offset_ + 257);
    for (const char c : text) out.push_back(static_cast<unsigned char>(c) + offset_);
  }
  std::string decode(std::span<const text::TokenId> ids, bool) const override {
    std::string text;
    for (const auto id : ids) text += token_bytes(id);
    return text;
  }
  std::string token_bytes(text::TokenId id) const override {
    if (id == offset_ + 257) return "<bos>";
    return id == offset_ + 256 ? "<eos>" : std::string(1, static_cast<char>(id - offset_));
  }
  std::optional<text::TokenId> token_to_id(std::string_view) const override { return std::nullopt; }
  std::string id_to_token(text::TokenId id) const override { return std::to_string(id); }
  bool is_special(text::TokenId id) const override { return id >= offset_ + 256; }
  void save(const std::filesystem::path&) const override {}

 private:
  int32_t offset_;
  bool with_eos_, with_bos_;
};

inline const ByteTokenizer kBytes;

/// Lines of English-looking and Chinese words.
inline std::string random_text(std::mt19937& random, size_t bytes) {
  static const char* const kWords[] = {"the", "model", "reads", "黃帝", "鑄鼎", "a", "於荆山", "token", "。", "stream"};
  std::string text;
  while (text.size() < bytes) {
    text += kWords[random() % 10];
    text += random() % 9 == 0 ? '\n' : ' ';
  }
  return text;
}

}  // namespace llmtk::test
