#pragma once
// What is put around and between the ids of a text, or of a pair of texts.

#include <vector>

#include "text/tokenizer.h"

namespace llmtk::text {

/// Templates of one text and of two. Immutable.
class PostProcessor {
 public:
  struct Piece {
    enum class Kind { text, pair, tokens };
    Kind kind = Kind::text;
    TokenId type_id = 0;
    std::vector<TokenId> ids = {};  ///< of tokens
  };

  /// Nothing added; the second text of a pair has type 1.
  PostProcessor();
  /// `single` has the text once, `pair` both texts once.
  PostProcessor(std::vector<Piece> single, std::vector<Piece> pair);

  /// What stands before and after one text.
  const std::vector<TokenId>& before() const { return before_; }
  const std::vector<TokenId>& after() const { return after_; }
  bool adds_nothing() const;

  /// Puts together what was encoded of `text` and, where it is not null, of `pair`.
  Encoding apply(const std::vector<TokenId>& text, const std::vector<TokenId>* pair, bool add_special_tokens) const;

 private:
  std::vector<Piece> single_, pair_;
  std::vector<TokenId> before_, after_;
};

}  // namespace llmtk::text
