#pragma once
// What turns one word of a pre-tokenized text into ids: byte-pair encoding, WordPiece or Unigram.

#include <string_view>
#include <vector>

#include "text/vocabulary.h"
#include "text/word_cache.h"

namespace llmtk::text {

/// Immutable once made: one object serves all threads, each with a WordCache of its own.
class TokenModel {
 public:
  virtual ~TokenModel() = default;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  /// What stands for the unknown; -1 for none.
  TokenId unk() const { return unk_; }
  /// Whether blanks that a vocabulary of words leaves before punctuation may be cleaned out of decoded text: byte-pair
  /// encoding gives a text back as it was.
  virtual bool may_be_cleaned_up() const { return true; }

  /// Appends the ids of one pre-tokenized word. `readable_end`: memory may be read up to here (>= word's end).
  void encode_word(std::string_view word, const char* readable_end, WordCache& cache, std::vector<TokenId>& out) const {
    if (word.size() <= WordCache::kMaxBytes) [[likely]]
      cache.encode(word, false, readable_end, out, [&] { encode_short(word, cache, out); });
    else
      encode_long(word, readable_end, cache, out);
  }

 protected:
  TokenModel(Vocabulary vocabulary, TokenId unk) : vocabulary_(std::move(vocabulary)), unk_(unk) {}
  /// Of a word that fits the cache and is not in it.
  virtual void encode_short(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const = 0;
  /// Of a word too long for the cache.
  virtual void encode_long(std::string_view word, const char* readable_end, WordCache& cache,
                           std::vector<TokenId>& out) const = 0;

 private:
  Vocabulary vocabulary_;
  TokenId unk_;
};

}  // namespace llmtk::text
