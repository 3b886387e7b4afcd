#include "text/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "text/unicode.h"

namespace llmtk::text {
namespace {

bool has_class(char32_t code, uint8_t bits) { return (CharTable::get().of(code) & bits) != 0; }

}  // namespace

TokenFinder::TokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)), nodes_(1) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  for (size_t i = 0; i < tokens_.size(); ++i) {
    uint32_t at = 0;
    for (const char ch : tokens_[i].content) {
      const auto byte = static_cast<unsigned char>(ch);
      const auto& children = nodes_[at].children;
      const auto child = std::find_if(children.begin(), children.end(), [&](const auto& c) { return c.first == byte; });
      if (child != children.end()) {
        at = child->second;
        continue;
      }
      const auto fresh = static_cast<uint32_t>(nodes_.size());
      nodes_[at].children.emplace_back(byte, fresh);
      nodes_.emplace_back();
      at = fresh;
    }
    nodes_[at].token = static_cast<int32_t>(i);
    const auto first = static_cast<unsigned char>(tokens_[i].content[0]);
    if (!starts_[first]) start_bytes_ += static_cast<char>(first);
    starts_[first] = true;
  }
}

size_t TokenFinder::next_start(std::string_view text, size_t from) const {
  if (start_bytes_.size() == 1) {  // nearly always '<': as fast as memory
    const void* found = std::memchr(text.data() + from, start_bytes_[0], text.size() - from);
    return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : text.size();
  }
  while (from < text.size() && !starts_[static_cast<unsigned char>(text[from])]) ++from;
  return from;
}

TokenFinder::Match TokenFinder::next(std::string_view text, size_t from) const {
  if (tokens_.empty()) return {};
  for (size_t at = next_start(text, from); at < text.size(); at = next_start(text, at + 1)) {
    Match best;
    uint32_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      const auto& children = nodes_[node].children;
      const auto child = std::find_if(children.begin(), children.end(), [&](const auto& c) { return c.first == byte; });
      if (child == children.end()) break;
      node = child->second;
      if (nodes_[node].token >= 0) best = {at, i + 1, &tokens_[nodes_[node].token]};
    }
    if (best.token) return best;
  }
  return {};
}

bool TokenFinder::widen(std::string_view text, const AddedToken& token, size_t done, size_t& begin, size_t& end) {
  const auto code_at = [&](size_t at) { return decode_utf8(text.data() + at, text.data() + text.size()); };
  if (token.single_word) {
    if (begin > 0 && has_class(last_character(text.substr(0, begin)).code, kWord)) return false;
    if (end < text.size() && has_class(code_at(end).code, kWord)) return false;
  }
  if (token.lstrip) {
    while (begin > done) {
      const Utf8Char c = last_character(text.substr(0, begin));
      if (!has_class(c.code, kSpace)) break;
      begin -= c.size;
    }
    begin = std::max(begin, done);
  }
  if (token.rstrip) {
    while (end < text.size()) {
      const Utf8Char c = code_at(end);
      if (!has_class(c.code, kSpace)) break;
      end += c.size;
    }
  }
  // A token swallowed by the white space that an earlier one took: nothing of it is left.
  begin = std::max(begin, done);
  return end > begin;
}

}  // namespace llmtk::text
