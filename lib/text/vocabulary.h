#pragma once
// Token strings and their ids, compactly: one arena, one open-addressing index.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::text {

class Vocabulary {
 public:
  /// Ids must be unique and below 2^24; ids may have gaps. Returns false when the id or the token is taken already.
  bool add(std::string_view token, TokenId id);
  void reserve(size_t tokens, size_t bytes);

  /// -1 where there is none.
  TokenId find(std::string_view token) const;
  /// Empty for an id that stands for nothing.
  std::string_view token(TokenId id) const;
  bool has(TokenId id) const;
  /// One more than the largest id.
  size_t size() const { return places_.size(); }
  size_t count() const { return count_; }

  static constexpr TokenId kMaxId = (1 << 24) - 1;

 private:
  struct Place {
    uint32_t offset = 0, size = kNone;
  };
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  void grow(size_t slots);
  std::string arena_;
  std::vector<Place> places_;   // by id
  std::vector<TokenId> index_;  // -1 or an id; a power of two long
  size_t count_ = 0;
};

}  // namespace llmtk::text
