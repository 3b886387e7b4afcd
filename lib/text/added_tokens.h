#pragma once
// Tokens that are found in the text itself before anything else looks at it: special ones and those added later.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::text {

/// As tokenizer.json's `added_tokens` lists them.
struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool single_word = false;  ///< only where no word character stands beside it
  bool lstrip = false;       ///< swallows the white space before it
  bool rstrip = false;       ///< and after it
  bool normalized = false;   ///< looked for after the others, in the normalized text
  bool special = false;
};

/// Finds the leftmost of some strings, the longest of those that begin at one place.
class TokenFinder {
 public:
  explicit TokenFinder(std::vector<AddedToken> tokens);
  bool empty() const { return tokens_.empty(); }

  /// Calls piece(part, token) in order: token is null for the text between tokens. The parts cover the text.
  template <class Piece>
  void split(std::string_view text, Piece&& piece) const {
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const Match match = next(text, at);
      if (!match.token) break;
      at = match.end;
      size_t begin = match.begin, end = match.end;
      if (!widen(text, *match.token, done, begin, end)) continue;
      if (begin > done) piece(text.substr(done, begin - done), nullptr);
      piece(text.substr(begin, end - begin), match.token);
      done = end;
    }
    if (done < text.size()) piece(text.substr(done), nullptr);
  }

 private:
  struct Match {
    size_t begin = 0, end = 0;
    const AddedToken* token = nullptr;
  };
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> children;
    int32_t token = -1;
  };
  Match next(std::string_view text, size_t from) const;
  size_t next_start(std::string_view text, size_t from) const;
  /// Applies the token's flags; false where single_word forbids the match.
  static bool widen(std::string_view text, const AddedToken& token, size_t done, size_t& begin, size_t& end);

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::array<bool, 256> starts_{};
  std::string start_bytes_;
};

}  // namespace llmtk::text
