#pragma once
// The loop of byte-pair encoding (Sennrich et al. 2016): the most frequent pair of neighbours becomes one token, again
// and again.

#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/bpe.h"
#include "text/split.h"
#include "text/vocabulary.h"

namespace llmtk::text {

/// How often each word (piece between the pre-tokenizer's cuts) stands in a corpus.
class WordCounts {
 public:
  void add(std::string_view text, const PreTokenizer& pre_tokenizer);
  void add(const WordCounts& other);
  const auto& words() const { return words_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view word) const { return std::hash<std::string_view>()(word); }
  };
  std::unordered_map<std::string, uint64_t, Hash, std::equal_to<>> words_;
};

/// The merges that Hugging Face's BpeTrainer finds on the same words: of pairs equally frequent the one with the smaller
/// ids.
class MergeLearner {
 public:
  /// `vocabulary` holds the special tokens and the alphabet. continuing_prefix: what the tokens that continue a word
  /// begin with ("##"), which is left out inside a joined one.
  MergeLearner(Vocabulary& vocabulary, std::string continuing_prefix)
      : vocabulary_(vocabulary), prefix_(std::move(continuing_prefix)) {}

  void add_word(std::vector<TokenId> symbols, uint64_t count) {
    words_.push_back({std::move(symbols), static_cast<int64_t>(count)});
  }
  /// Joins until the vocabulary has `vocab_size` tokens, or no pair stands `min_frequency` times (then it warns).
  /// `progress` hears (tokens so far, vocab_size).
  std::vector<BpeModel::Merge> run(size_t vocab_size, uint64_t min_frequency,
                                   const std::function<void(size_t, size_t)>& progress);

 private:
  using Pair = uint64_t;  // left id in the upper half: compares as (left, right)
  struct Word {
    std::vector<TokenId> symbols;
    int64_t count;
  };
  /// A pair that may be joined, as it was counted at some time, and the words that gained it then. One pair may have
  /// several of these: each knows other words.
  struct Candidate {
    Pair pair;
    int64_t count;
    std::vector<uint32_t> words;

    /// The most frequent comes first, of equals the one with the smaller ids.
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };
  using Where = std::unordered_map<Pair, std::vector<uint32_t>>;

  void count_pairs();
  void note(Pair pair, uint32_t word, int64_t change, Where& where);
  void push(Where& where);
  void join(const Candidate& candidate);
  TokenId joined_token(TokenId left, TokenId right);

  Vocabulary& vocabulary_;
  std::string prefix_;
  std::vector<Word> words_;
  std::unordered_map<Pair, int64_t> counts_;
  std::priority_queue<Candidate> queue_;
  std::vector<BpeModel::Merge> merges_;
};

}  // namespace llmtk::text
