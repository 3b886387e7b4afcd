#include "generate/speculation.h"

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "core/error.h"
#include "generate/decoder.h"

namespace llmtk::generate {

using text::TokenId;

std::vector<TokenId> look_up(std::span<const TokenId> context, int64_t ngram, int64_t most) {
  const auto size = static_cast<int64_t>(context.size());
  for (int64_t n = std::min(ngram, size - 1); n > 0 && most > 0; --n) {
    const auto tail = context.last(static_cast<size_t>(n));
    for (int64_t begin = size - n - 1; begin >= 0; --begin) {
      if (!std::ranges::equal(context.subspan(static_cast<size_t>(begin), static_cast<size_t>(n)), tail)) continue;
      const int64_t follows = begin + n, count = std::min(most, size - follows);
      const auto found = context.subspan(static_cast<size_t>(follows), static_cast<size_t>(count));
      return {found.begin(), found.end()};
    }
  }
  return {};
}

namespace {

class LookUp final : public Proposer {
 public:
  explicit LookUp(int64_t ngram) : ngram_(ngram) {}
  void start(const std::vector<const std::vector<TokenId>*>&, int64_t) override {}
  void select(const std::vector<int64_t>&) override {}
  std::vector<std::vector<TokenId>> propose(const std::vector<std::span<const TokenId>>& contexts,
                                            const std::vector<int64_t>& most) override {
    std::vector<std::vector<TokenId>> proposals;
    for (size_t i = 0; i < contexts.size(); ++i) proposals.push_back(look_up(contexts[i], ngram_, most[i]));
    return proposals;
  }

 private:
  int64_t ngram_;
};

/// What a smaller model would write, greedily.
class Draft final : public Proposer {
 public:
  explicit Draft(const Speculation& speculation)
      : model_(*speculation.draft), tokens_(speculation.tokens), decoder_(make_decoder(model_, config_, options_)) {}

  void start(const std::vector<const std::vector<TokenId>*>& prompts, int64_t new_tokens) override {
    read_.clear();
    size_t longest = 0;
    for (const auto* prompt : prompts) longest = std::max(longest, prompt->size());
    silent_ = static_cast<int64_t>(longest) > model_.max_positions();
    if (silent_) return;
    decoder_->start(prompts, new_tokens + tokens_ + 1);
    for (const auto* prompt : prompts) read_.push_back(*prompt);
  }

  void select(const std::vector<int64_t>& rows) override {
    if (silent_) return;
    decoder_->select(rows);
    std::vector<std::vector<TokenId>> kept;
    for (const int64_t row : rows) kept.push_back(read_[static_cast<size_t>(row)]);
    read_ = std::move(kept);
  }

  std::vector<std::vector<TokenId>> propose(const std::vector<std::span<const TokenId>>& contexts,
                                            const std::vector<int64_t>& most) override {
    std::vector<std::vector<TokenId>> proposals(contexts.size());
    const int64_t count = *std::ranges::max_element(most);
    size_t longest = 0;
    for (const auto& context : contexts) longest = std::max(longest, context.size());
    if (silent_ || count == 0 || static_cast<int64_t>(longest) + count > model_.max_positions()) return proposals;
    std::vector<TokenId> next = read(contexts);
    for (int64_t i = 0;; ++i) {
      for (size_t b = 0; b < contexts.size(); ++b)
        if (i < most[b]) proposals[b].push_back(next[b]);
      if (i + 1 == count) return proposals;
      for (size_t b = 0; b < contexts.size(); ++b) read_[b].push_back(next[b]);
      next = best(decoder_->step(next, 1), 0);
    }
  }

 private:
  /// What of the contexts has not been read, in all rows as many tokens: where one needs fewer, some are read again.
  /// Returns the best next tokens.
  std::vector<TokenId> read(const std::vector<std::span<const TokenId>>& contexts) {
    size_t unread = 1;
    for (size_t b = 0; b < contexts.size(); ++b) {
      const auto same = std::ranges::mismatch(read_[b], contexts[b]).in1 - read_[b].begin();
      unread = std::max(unread, contexts[b].size() - static_cast<size_t>(same));
    }
    std::vector<TokenId> ids;
    std::vector<int64_t> lengths;
    for (size_t b = 0; b < contexts.size(); ++b) {
      LLMTK_CHECK(contexts[b].size() >= unread, unread, " tokens of ", contexts[b].size());
      const auto tail = contexts[b].last(unread);
      ids.insert(ids.end(), tail.begin(), tail.end());
      lengths.push_back(static_cast<int64_t>(contexts[b].size() - unread));
      read_[b].assign(contexts[b].begin(), contexts[b].end());
    }
    decoder_->truncate(lengths);
    const auto tokens = static_cast<int64_t>(unread);
    return best(decoder_->step(ids, tokens), tokens - 1);
  }

  /// The best token of each row behind its token `at`. logits: [B, T, V].
  static std::vector<TokenId> best(const at::Tensor& logits, int64_t at) {
    const at::Tensor ids = logits.select(1, at).argmax(-1).cpu();
    return {ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel()};
  }

  nn::CausalModel& model_;
  int64_t tokens_;
  const GenerationConfig config_;
  const GenerateOptions options_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::vector<TokenId>> read_;  // what the draft's cache holds, row by row
  bool silent_ = false;                     // the texts are longer than it can see
};

}  // namespace

std::unique_ptr<Proposer> make_proposer(const Speculation& speculation) {
  if (speculation.draft) return std::make_unique<Draft>(speculation);
  return std::make_unique<LookUp>(speculation.ngram);
}

}  // namespace llmtk::generate
