#include "text/train_bpe.h"

#include <algorithm>
#include <array>
#include <queue>

#include "core/error.h"
#include "core/log.h"
#include "text/byte_level.h"
#include "text/hf_write.h"
#include "text/unicode.h"

namespace llmtk::text {
namespace {

using Pair = uint64_t;  // left id in the upper half: compares as (left, right)

constexpr Pair pair_of(TokenId left, TokenId right) {
  return Pair{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}
constexpr TokenId left_of(Pair pair) { return static_cast<TokenId>(pair >> 32); }
constexpr TokenId right_of(Pair pair) { return static_cast<TokenId>(pair & 0xFFFFFFFF); }

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

class Trainer {
 public:
  Trainer(const WordCounts& words, const BpeTrainingOptions& options) : options_(options) {
    add_alphabet();
    for (const auto& [text, count] : words.words()) {
      Word word{.symbols = {}, .count = static_cast<int64_t>(count)};
      word.symbols.reserve(text.size());
      for (const char c : text) word.symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
      words_.push_back(std::move(word));
    }
  }

  std::unique_ptr<HfTokenizer> run(const std::function<void(size_t, size_t)>& progress) {
    count_pairs();
    while (vocabulary_.size() < options_.vocab_size && !queue_.empty()) {
      Candidate best = std::move(const_cast<Candidate&>(queue_.top()));  // popped at once: its order no longer matters
      queue_.pop();
      if (const int64_t now = counts_[best.pair]; best.count != now) {
        best.count = now;
        queue_.push(std::move(best));
        continue;
      }
      if (best.count < 1 || best.count < static_cast<int64_t>(options_.min_frequency)) break;
      join(best);
      if (progress && vocabulary_.size() % 256 == 0) progress(vocabulary_.size(), options_.vocab_size);
    }
    if (vocabulary_.size() < options_.vocab_size)
      log::warn("the text has pairs for " + std::to_string(vocabulary_.size()) + " tokens only, " +
                std::to_string(options_.vocab_size) + " were asked for");
    return finish();
  }

 private:
  void add_alphabet() {
    const size_t least = options_.special_tokens.size() + 256;
    if (options_.vocab_size < least)
      throw Error(Exit::usage, {.what = "the vocabulary has no room for all bytes and the special tokens",
                                .got = std::to_string(options_.vocab_size),
                                .expected = "at least " + std::to_string(least)});
    for (const auto& token : options_.special_tokens)
      if (!vocabulary_.add(token, static_cast<TokenId>(vocabulary_.size())))
        throw Error(Exit::usage, {.what = "a special token is given twice", .got = "'" + token + "'"});
    std::array<int, 256> order;
    for (int byte = 0; byte < 256; ++byte) order[static_cast<size_t>(byte)] = byte;
    std::ranges::sort(order, {}, [](int byte) { return byte_to_char(static_cast<unsigned char>(byte)); });
    for (const int byte : order) {
      std::string spelled;
      append_utf8(byte_to_char(static_cast<unsigned char>(byte)), spelled);
      const auto id = static_cast<TokenId>(vocabulary_.size());
      if (!vocabulary_.add(spelled, id))
        throw Error(Exit::usage, {.what = "a special token is the spelling of a byte", .got = "'" + spelled + "'"});
      byte_ids_[static_cast<size_t>(byte)] = id;
    }
  }

  void count_pairs() {
    std::unordered_map<Pair, std::vector<uint32_t>> where;
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const auto& symbols = words_[w].symbols;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) note(pair_of(symbols[i], symbols[i + 1]), w, 1, where);
    }
    push(where);
  }

  void note(Pair pair, uint32_t word, int64_t change, std::unordered_map<Pair, std::vector<uint32_t>>& where) {
    counts_[pair] += change * words_[word].count;
    if (change < 0) return;
    auto& list = where[pair];
    if (list.empty() || list.back() != word) list.push_back(word);
  }

  void push(std::unordered_map<Pair, std::vector<uint32_t>>& where) {
    for (auto& [pair, words] : where)
      if (const int64_t count = counts_[pair]; count > 0) queue_.push({pair, count, std::move(words)});
  }

  /// Joins the pair in the words that the candidate knows, from left to right.
  void join(const Candidate& candidate) {
    const TokenId left = left_of(candidate.pair), right = right_of(candidate.pair);
    const std::string spelled = std::string(vocabulary_.token(left)) + std::string(vocabulary_.token(right));
    TokenId joined = vocabulary_.find(spelled);
    if (joined < 0) {
      joined = static_cast<TokenId>(vocabulary_.size());
      LLMTK_CHECK(vocabulary_.add(spelled, joined));
    }
    merges_.push_back({left, right, joined});
    std::unordered_map<Pair, std::vector<uint32_t>> where;
    for (const uint32_t w : candidate.words) {
      auto& symbols = words_[w].symbols;
      size_t out = 0;
      for (size_t i = 0; i < symbols.size(); ++i) {
        if (symbols[i] != left || i + 1 == symbols.size() || symbols[i + 1] != right) {
          symbols[out++] = symbols[i];
          continue;
        }
        if (out > 0) {
          note(pair_of(symbols[out - 1], left), w, -1, where);
          note(pair_of(symbols[out - 1], joined), w, 1, where);
        }
        if (i + 2 < symbols.size()) {
          note(pair_of(right, symbols[i + 2]), w, -1, where);
          note(pair_of(joined, symbols[i + 2]), w, 1, where);
        }
        symbols[out++] = joined;
        ++i;
      }
      symbols.resize(out);
    }
    push(where);
  }

  std::unique_ptr<HfTokenizer> finish() {
    TokenizerSketch sketch{
        .vocabulary = &vocabulary_, .merges = merges_, .byte_level = true, .pattern = options_.pattern};
    for (const auto& token : options_.special_tokens)
      sketch.added.push_back({.id = vocabulary_.find(token), .content = token, .special = true});
    if (!options_.special_tokens.empty()) sketch.bos = sketch.eos = options_.special_tokens.front();
    auto files = write_tokenizer_files(sketch, false);
    const std::string json = files.front().second;
    return parse_tokenizer_json(json, "the trained tokenizer.json", std::move(files));
  }

  const BpeTrainingOptions& options_;
  Vocabulary vocabulary_;
  std::array<TokenId, 256> byte_ids_{};
  std::vector<Word> words_;
  std::unordered_map<Pair, int64_t> counts_;
  std::priority_queue<Candidate> queue_;
  std::vector<BpeModel::Merge> merges_;
};

}  // namespace

void WordCounts::add(std::string_view text, const PreTokenizer& pre_tokenizer) {
  pre_tokenizer.for_each_word(text, true, [this](std::string_view word, const char*) {
    if (const auto found = words_.find(word); found != words_.end())
      ++found->second;
    else
      words_.emplace(word, 1);
  });
}

void WordCounts::add(const WordCounts& other) {
  for (const auto& [word, count] : other.words_) words_[word] += count;
}

std::unique_ptr<HfTokenizer> train_bpe(const WordCounts& words, const BpeTrainingOptions& options,
                                       const std::function<void(size_t, size_t)>& progress) {
  return Trainer(words, options).run(progress);
}

}  // namespace llmtk::text
