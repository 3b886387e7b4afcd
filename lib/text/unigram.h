#pragma once
// Unigram (Kudo 2018): of all ways to cut a word into tokens the one whose scores (log-probabilities) sum to the most.
// Ids are exactly those of Hugging Face's `Unigram` model.

#include <array>
#include <vector>

#include "text/byte_trie.h"
#include "text/token_model.h"

namespace llmtk::text {

struct UnigramOptions {
  TokenId unk = -1;            ///< for characters without a token, in a row one for all; needed
  bool byte_fallback = false;  ///< an unknown run becomes its bytes' tokens <0x00> ... <0xFF> where these are there
};

class UnigramModel : public TokenModel {
 public:
  /// `scores` by id; the ids of `vocabulary` have no gaps.
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, UnigramOptions options);

  const std::vector<double>& scores() const { return scores_; }

 private:
  struct Scratch;
  void encode_short(std::string_view word, WordCache& cache, std::vector<TokenId>& out) const override;
  void encode_long(std::string_view word, const char* readable_end, WordCache& cache,
                   std::vector<TokenId>& out) const override;
  void find_best_path(std::string_view word, Scratch& scratch) const;
  void encode_unknown(std::string_view part, std::vector<TokenId>& out) const;

  std::vector<double> scores_;
  UnigramOptions options_;
  ByteTrie tokens_;
  double unk_score_ = 0;
  std::array<TokenId, 256> byte_ids_{};
};

}  // namespace llmtk::text
