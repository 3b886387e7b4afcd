#include "inspect/labels.h"

#include "core/utf8.h"

namespace llmtk {
namespace {

std::string readable(const std::string& text) {
  std::string label;
  for (const char c : text) label += c == ' ' ? std::string("␣") : std::string(1, c);
  return one_line(label);
}

}  // namespace

std::vector<std::string> token_labels(const text::Tokenizer& tokenizer, std::span<const text::TokenId> ids) {
  constexpr size_t kMostParts = 4;  // bytes of a character
  std::vector<std::string> labels(ids.size());
  for (size_t i = 0; i < ids.size();) {
    // As few tokens as make whole characters together.
    size_t parts = 1;
    std::string bytes = tokenizer.token_bytes(ids[i]);
    if (!tokenizer.is_special(ids[i])) {
      std::string joined = bytes;
      for (size_t n = 1; find_invalid_utf8(joined) != std::string_view::npos && n < kMostParts && i + n < ids.size();) {
        joined += tokenizer.token_bytes(ids[i + n]);
        if (find_invalid_utf8(joined) == std::string_view::npos) {
          parts = n + 1;
          bytes = joined;
        }
        ++n;
      }
    }
    const bool whole = find_invalid_utf8(bytes) == std::string_view::npos;
    const std::string text =
        whole && !tokenizer.is_special(ids[i]) ? readable(bytes) : one_line(tokenizer.id_to_token(ids[i]));
    for (size_t part = 0; part < parts; ++part)
      labels[i + part] = parts == 1 ? text : text + " " + std::to_string(part + 1) + "/" + std::to_string(parts);
    i += parts;
  }
  return labels;
}

}  // namespace llmtk
