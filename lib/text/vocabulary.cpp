#include "text/vocabulary.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "core/error.h"

namespace llmtk::text {

bool Vocabulary::add(std::string_view token, TokenId id) {
  LLMTK_CHECK(id >= 0 && id <= kMaxId, "token id ", id);
  LLMTK_CHECK(arena_.size() + token.size() < kNone, "the vocabulary's strings exceed 4 GiB");
  if (has(id) || find(token) >= 0) return false;
  if ((count_ + 1) * 2 > index_.size()) grow(std::max<size_t>(64, index_.size() * 2));
  if (places_.size() <= static_cast<size_t>(id)) places_.resize(static_cast<size_t>(id) + 1);
  places_[id] = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(token.size())};
  arena_ += token;
  ++count_;
  size_t slot = std::hash<std::string_view>{}(token) & (index_.size() - 1);
  while (index_[slot] >= 0) slot = (slot + 1) & (index_.size() - 1);
  index_[slot] = id;
  return true;
}

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  arena_.reserve(bytes);
  places_.reserve(tokens);
  grow(std::bit_ceil(std::max<size_t>(64, tokens * 2)));
}

void Vocabulary::grow(size_t slots) {
  if (slots <= index_.size()) return;
  index_.assign(slots, -1);
  for (size_t id = 0; id < places_.size(); ++id) {
    if (places_[id].size == kNone) continue;
    size_t slot = std::hash<std::string_view>{}(token(static_cast<TokenId>(id))) & (slots - 1);
    while (index_[slot] >= 0) slot = (slot + 1) & (slots - 1);
    index_[slot] = static_cast<TokenId>(id);
  }
}

TokenId Vocabulary::find(std::string_view token) const {
  if (index_.empty()) return -1;
  size_t slot = std::hash<std::string_view>{}(token) & (index_.size() - 1);
  for (; index_[slot] >= 0; slot = (slot + 1) & (index_.size() - 1))
    if (this->token(index_[slot]) == token) return index_[slot];
  return -1;
}

bool Vocabulary::has(TokenId id) const {
  return id >= 0 && static_cast<size_t>(id) < places_.size() && places_[id].size != kNone;
}

std::string_view Vocabulary::token(TokenId id) const {
  if (!has(id)) return {};
  return std::string_view(arena_).substr(places_[id].offset, places_[id].size);
}

}  // namespace llmtk::text
