#pragma once
// WordPiece (Schuster and Nakajima 2012, as in BERT): of a word the longest token that begins it, then the longest
// continuation of what is left, and so on. Ids are exactly those of Hugging Face's `WordPiece` model.

#include <string>

#include "text/byte_trie.h"
#include "text/token_model.h"

namespace llmtk::text {

struct WordPieceOptions {
  TokenId unk = -1;                              ///< a word that cannot be put together is this one token; needed
  std::string continuing_subword_prefix = "##";  ///< what the tokens that continue a word begin with
  size_t max_input_chars_per_word = 100;         ///< a longer word is unknown
};

class WordPieceModel : public TokenModel {
 public:
  WordPieceModel(Vocabulary vocabulary, WordPieceOptions options);

 private:
  void encode_short(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const override;
  void encode_long(std::string_view word, const char* readable_end, WordCache& cache,
                   std::vector<TokenId>& out) const override;
  /// False, and `out` as it was, for a word that some part of is no token.
  bool encode_pieces(std::string_view word, std::vector<TokenId>& out) const;

  WordPieceOptions options_;
  ByteTrie beginnings_, continuations_;
};

}  // namespace llmtk::text
