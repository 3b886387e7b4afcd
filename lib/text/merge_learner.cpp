#include "text/merge_learner.h"

#include "core/error.h"
#include "core/log.h"

namespace llmtk::text {
namespace {

constexpr uint64_t pair_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}
constexpr TokenId left_of(uint64_t pair) { return static_cast<TokenId>(pair >> 32); }
constexpr TokenId right_of(uint64_t pair) { return static_cast<TokenId>(pair & 0xFFFFFFFF); }

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

std::vector<BpeModel::Merge> MergeLearner::run(size_t vocab_size, uint64_t min_frequency,
                                               const std::function<void(size_t, size_t)>& progress) {
  count_pairs();
  while (vocabulary_.size() < vocab_size && !queue_.empty()) {
    Candidate best = std::move(const_cast<Candidate&>(queue_.top()));  // popped at once: its order no longer matters
    queue_.pop();
    if (const int64_t now = counts_[best.pair]; best.count != now) {
      best.count = now;
      queue_.push(std::move(best));
      continue;
    }
    if (best.count < 1 || best.count < static_cast<int64_t>(min_frequency)) break;
    join(best);
    if (progress && vocabulary_.size() % 256 == 0) progress(vocabulary_.size(), vocab_size);
  }
  if (vocabulary_.size() < vocab_size)
    log::warn("the text has pairs for " + std::to_string(vocabulary_.size()) + " tokens only, " +
              std::to_string(vocab_size) + " were asked for");
  return std::move(merges_);
}

void MergeLearner::count_pairs() {
  Where where;
  for (uint32_t w = 0; w < words_.size(); ++w) {
    const auto& symbols = words_[w].symbols;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) note(pair_of(symbols[i], symbols[i + 1]), w, 1, where);
  }
  push(where);
}

void MergeLearner::note(Pair pair, uint32_t word, int64_t change, Where& where) {
  counts_[pair] += change * words_[word].count;
  if (change < 0) return;
  auto& list = where[pair];
  if (list.empty() || list.back() != word) list.push_back(word);
}

void MergeLearner::push(Where& where) {
  for (auto& [pair, words] : where)
    if (const int64_t count = counts_[pair]; count > 0) queue_.push({pair, count, std::move(words)});
}

TokenId MergeLearner::joined_token(TokenId left, TokenId right) {
  std::string_view tail = vocabulary_.token(right);
  if (tail.starts_with(prefix_)) tail.remove_prefix(prefix_.size());
  const std::string spelled = std::string(vocabulary_.token(left)) + std::string(tail);
  if (const TokenId known = vocabulary_.find(spelled); known >= 0) return known;
  const auto joined = static_cast<TokenId>(vocabulary_.size());
  LLMTK_CHECK(vocabulary_.add(spelled, joined));
  return joined;
}

/// Joins the pair in the words that the candidate knows, from left to right.
void MergeLearner::join(const Candidate& candidate) {
  const TokenId left = left_of(candidate.pair), right = right_of(candidate.pair);
  const TokenId joined = joined_token(left, right);
  merges_.push_back({left, right, joined});
  Where where;
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

}  // namespace llmtk::text
