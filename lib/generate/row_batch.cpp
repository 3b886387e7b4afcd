// Greedy decoding and sampling.

#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "generate/batch.h"
#include "generate/chooser.h"
#include "generate/speculation.h"
#include "generate/text_stream.h"

namespace llmtk::generate {
namespace {

using text::TokenId;

/// Tokens that a decoder reads as few rows, all rows together: what it then computes does not depend on how many they
/// are.
constexpr int64_t kMostSpeculated = 32;

/// One continuation in the making.
struct Row {
  Row(Slot& slot, const Work& work)
      : slot(slot), context(slot.task->context), text(work.tokenizer, work.config.stop_strings, slot.task->begins) {}

  Slot& slot;
  std::vector<TokenId> context;  // prompt and continuation, no padding
  TextStream text;
  int64_t hope = 1;  // tokens to propose, with speculation

  int64_t new_tokens() const { return static_cast<int64_t>(slot.completion.ids.size()); }
  Position position() const { return {context, new_tokens(), slot.task->limit}; }
};

class RowBatch final : public Batch {
 public:
  RowBatch(const Work& work, std::span<Slot> slots) : work_(work), chooser_(work.config) {
    for (Slot& slot : slots) rows_.emplace_back(slot, work);
    if (!work.options.speculation) return;
    proposer_ = make_proposer(*work.options.speculation);
    for (Row& row : rows_) row.hope = work.options.speculation->tokens;
  }

  /// A prompt with several sequences goes through the model once.
  void start() override {
    std::vector<int64_t> prompt_of_row;  // rows of one prompt stand together
    std::vector<const std::vector<TokenId>*> prompts;
    const Task* last = nullptr;
    int64_t longest = 0;
    for (const Row& row : rows_) {
      if (std::exchange(last, row.slot.task) != row.slot.task) prompts.push_back(&row.slot.task->prompt);
      prompt_of_row.push_back(static_cast<int64_t>(prompts.size()) - 1);
      longest = std::max(longest, row.slot.task->limit);
    }
    at::Tensor logits = work_.decoder.start(prompts, longest);  // [P, V]
    work_.decoder.select(prompt_of_row);
    if (prompts.size() < rows_.size())
      logits = logits.index_select(0, at::tensor(prompt_of_row, at::kLong).to(logits.device()));
    alive_.resize(rows_.size());
    std::iota(alive_.begin(), alive_.end(), size_t{0});
    if (proposer_) {
      proposer_->start(prompts, longest);
      proposer_->select(prompt_of_row);
    }
    take(logits.unsqueeze(1), Proposals(alive_.size()));
  }

  bool step() override {
    drop_finished();
    if (alive_.empty()) return false;
    const auto proposals = propose();
    size_t tokens = 1;
    for (const auto& proposal : proposals) tokens = std::max(tokens, 1 + proposal.size());
    std::vector<TokenId> ids;
    for (size_t b = 0; b < alive_.size(); ++b) {
      ids.push_back(rows_[alive_[b]].context.back());
      ids.insert(ids.end(), proposals[b].begin(), proposals[b].end());
      ids.resize((b + 1) * tokens, ids.back());  // where others have more
    }
    take(work_.decoder.step(ids, static_cast<int64_t>(tokens)), proposals);
    if (tokens > 1) forget_refused();
    return true;
  }

 private:
  using Proposals = std::vector<std::vector<TokenId>>;

  /// What may come next in every running row.
  Proposals propose() {
    if (!proposer_) return Proposals(alive_.size());
    std::vector<std::span<const TokenId>> contexts;
    std::vector<int64_t> most;
    int64_t room =
        kMostSpeculated / static_cast<int64_t>(alive_.size()) - 1;  // the same for all: so many are read of each
    for (const size_t i : alive_) room = std::min(room, rows_[i].slot.task->limit - rows_[i].new_tokens() - 1);
    for (const size_t i : alive_) {
      contexts.push_back(rows_[i].context);
      most.push_back(std::clamp<int64_t>(rows_[i].hope, 0, std::max<int64_t>(room, 0)));
    }
    return proposer_->propose(contexts, most);
  }

  /// Chooses the next token of every running row from logits [B, T, V], and more of them as long as they are the
  /// proposed ones.
  void take(at::Tensor logits, const Proposals& proposals) {
    const int64_t T = logits.size(1);
    const bool logprobs = work_.options.logprobs;
    at::Tensor log_sums, best, ids;  // [B, T]
    if (logprobs)
      log_sums = at::logsumexp(logits, -1).cpu();  // of the model's own distribution, before anything changes it
    if (chooser_.plain_greedy()) {                 // on the device: one id per token comes back instead of V logits
      std::tie(best, ids) = logits.max(-1);
      best = best.cpu();
      ids = ids.cpu();
    } else {
      logits = logits.cpu().contiguous();
    }
    const auto choose = [&](const Row& row, int64_t at) -> std::pair<TokenId, float> {
      if (!chooser_.plain_greedy()) return chosen(row, logits.view({-1, logits.size(2)})[at], logprobs);
      const float score = best.const_data_ptr<float>()[at];
      if (!std::isfinite(score)) logits_not_finite(score);
      return {static_cast<TokenId>(ids.const_data_ptr<int64_t>()[at]), score};
    };
    for (size_t b = 0; b < alive_.size(); ++b) {
      Row& row = rows_[alive_[b]];
      const auto& proposal = proposals[b];
      size_t taken = 0;
      for (size_t t = 0;; ++t) {
        const int64_t at = static_cast<int64_t>(b) * T + static_cast<int64_t>(t);
        const auto [id, score] = choose(row, at);
        if (logprobs) row.slot.completion.logprobs.push_back(score - log_sums.const_data_ptr<float>()[at]);
        accept(row, id);
        if (t == proposal.size() || id != proposal[t]) break;
        ++taken;
        if (row.slot.done) break;
      }
      if (!proposal.empty()) count(row, proposal.size(), taken);
    }
  }

  /// From the logits [V] of one token, which may be written to.
  std::pair<TokenId, float> chosen(const Row& row, const at::Tensor& logits, bool logprobs) {
    const auto scores = std::span(logits.data_ptr<float>(), static_cast<size_t>(logits.numel()));
    if (logprobs) raw_.assign(scores.begin(), scores.end());
    chooser_.process(scores, row.position());
    const TokenId id = chooser_.choose(stream_of(row), row.new_tokens());
    return {id, logprobs ? raw_[id] : 0.0f};
  }

  /// More is proposed where all was taken, less where it was not.
  void count(Row& row, size_t proposed, size_t taken) {
    work_.timings.proposed += static_cast<int64_t>(proposed);
    work_.timings.accepted += static_cast<int64_t>(taken);
    row.hope = std::clamp<int64_t>(taken == proposed ? row.hope + 2 : static_cast<int64_t>(taken) + 1, 1,
                                   work_.options.speculation->tokens);
  }

  /// The decoder has read all that was proposed.
  void forget_refused() {
    std::vector<int64_t> lengths;
    for (const size_t i : alive_) lengths.push_back(static_cast<int64_t>(rows_[i].context.size()) - 1);
    work_.decoder.truncate(lengths);
  }

  /// The number of the row in the whole work: what its random stream is made from.
  uint64_t stream_of(const Row& row) const {
    return row.slot.task->index * work_.config.num_return_sequences + row.slot.completion.sequence;
  }

  void accept(Row& row, TokenId id) {
    Completion& completion = row.slot.completion;
    row.context.push_back(id);
    completion.ids.push_back(id);
    std::string piece = row.text.push(id);
    const bool eos = std::ranges::find(work_.config.eos_token_ids, id) != work_.config.eos_token_ids.end();
    if (eos || row.text.stopped_by() || row.new_tokens() >= row.slot.task->limit) {
      row.slot.done = true;
      piece += row.text.finish();
      // finish() may complete a stop string; an eos that also spells one is an eos.
      completion.finish_reason = eos                     ? FinishReason::eos
                                 : row.text.stopped_by() ? FinishReason::stop_string
                                                         : FinishReason::length;
      if (row.text.stopped_by()) completion.stop_string = *row.text.stopped_by();
      completion.text = row.text.text();
    }
    if (work_.options.on_text && !piece.empty()) work_.options.on_text(row.slot.row, piece);
  }

  /// Finished rows leave the batch and its cache, so that they cost nothing more.
  void drop_finished() {
    std::vector<size_t> running;
    std::vector<int64_t> kept;
    for (size_t b = 0; b < alive_.size(); ++b) {
      if (rows_[alive_[b]].slot.done) continue;
      running.push_back(alive_[b]);
      kept.push_back(static_cast<int64_t>(b));
    }
    alive_ = std::move(running);
    if (alive_.empty()) return;
    work_.decoder.select(kept);
    if (proposer_) proposer_->select(kept);
  }

  const Work work_;
  Chooser chooser_;
  std::unique_ptr<Proposer> proposer_;  // with speculation
  std::vector<Row> rows_;
  std::vector<size_t> alive_;  // rows still running, in the decoder's order
  std::vector<float> raw_;
};

}  // namespace

std::unique_ptr<Batch> make_row_batch(const Work& work, std::span<Slot> slots) {
  return std::make_unique<RowBatch>(work, slots);
}

}  // namespace llmtk::generate
