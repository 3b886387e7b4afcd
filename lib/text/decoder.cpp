#include "text/decoder.h"

#include <charconv>
#include <optional>

#include "core/utf8.h"
#include "text/byte_level.h"
#include "text/normalizer.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

using Kind = DecoderStep::Kind;

/// The byte that "<0xE4>" names.
std::optional<char> named_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  unsigned byte = 0;
  const auto parsed = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  if (parsed.ec != std::errc() || parsed.ptr != token.data() + 5) return std::nullopt;
  return static_cast<char>(byte);
}

void join_bytes(std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (find_invalid_utf8(bytes) == bytes.npos)
      out.push_back(bytes);
    else
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back("\xEF\xBF\xBD");
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const auto byte = named_byte(token)) {
      bytes += *byte;
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  tokens = std::move(out);
}

std::string stripped(std::string_view token, const DecoderStep& step) {
  for (size_t i = 0; i < step.start && token.starts_with(step.content); ++i) token.remove_prefix(step.content.size());
  for (size_t i = 0; i < step.stop && token.ends_with(step.content); ++i) token.remove_suffix(step.content.size());
  return std::string(token);
}

/// Hugging Face's own list, which is not quite clean_up_blanks().
std::string cleaned_up(std::string token) {
  constexpr std::pair<std::string_view, std::string_view> kReplaced[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [pattern, content] : kReplaced)
    if (token.find(pattern) != token.npos) token = replace_all(token, pattern, content);
  return token;
}

std::string word_piece(std::string token, bool first, const DecoderStep& step) {
  if (!first) token = token.starts_with(step.pattern) ? token.substr(step.pattern.size()) : ' ' + token;
  return step.cleanup ? cleaned_up(std::move(token)) : token;
}

std::string joined(const std::vector<std::string>& tokens, std::string_view between) {
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += between;
    out += tokens[i];
  }
  return out;
}

void apply(const DecoderStep& step, std::vector<std::string>& tokens) {
  switch (step.kind) {
    case Kind::byte_level: {
      std::string bytes;
      for (const std::string& token : tokens) bytes += unspell_bytes(token).value_or(token);
      tokens = {replace_invalid_utf8(bytes)};
      break;
    }
    case Kind::replace:
      for (std::string& token : tokens) token = replace_all(token, step.pattern, step.content);
      break;
    case Kind::byte_fallback:
      join_bytes(tokens);
      break;
    case Kind::fuse:
      tokens = {joined(tokens, "")};
      break;
    case Kind::strip:
      for (std::string& token : tokens) token = stripped(token, step);
      break;
    case Kind::metaspace:
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = replace_all(tokens[i], step.pattern, i == 0 && step.drop_first ? "" : " ");
      break;
    case Kind::wordpiece:
      for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = word_piece(std::move(tokens[i]), i == 0, step);
      break;
  }
}

}  // namespace

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (const DecoderStep& step : steps_) apply(step, tokens);
  return joined(tokens, joins_with_blanks() ? " " : "");
}

std::string Decoder::bytes_of(std::string token, bool first) const {
  bool fused = false;
  for (const DecoderStep& step : steps_) {
    switch (step.kind) {
      case Kind::byte_level:
        token = unspell_bytes(token).value_or(token);
        break;
      case Kind::replace:
        token = replace_all(token, step.pattern, step.content);
        break;
      case Kind::metaspace:
        token = replace_all(token, step.pattern, first && step.drop_first ? "" : " ");
        break;
      case Kind::byte_fallback:
        if (const auto byte = named_byte(token)) token = std::string(1, *byte);
        break;
      case Kind::wordpiece:
        token = word_piece(std::move(token), first, step);
        break;
      case Kind::strip:  // of the whole text where all tokens are one
        if (first || !fused) token = stripped(token, step);
        break;
      case Kind::fuse:
        fused = true;
        break;
    }
  }
  return joins_with_blanks() && !first ? ' ' + token : token;
}

bool Decoder::is_concatenation() const {
  return steps_.size() == 1 && (steps_[0].kind == Kind::byte_level || steps_[0].kind == Kind::fuse);
}

}  // namespace llmtk::text
