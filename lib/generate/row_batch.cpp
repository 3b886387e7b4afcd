// Greedy decoding and sampling.

#include <ATen/ops/logsumexp.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "generate/batch.h"
#include "generate/chooser.h"
#include "generate/text_stream.h"

namespace llmtk::generate {
namespace {

using text::TokenId;

/// One continuation in the making.
struct Row {
  Row(Slot& slot, const Work& work)
      : slot(slot), context(slot.task->context), text(work.tokenizer, work.config.stop_strings, slot.task->begins) {}

  Slot& slot;
  std::vector<TokenId> context;  // prompt and continuation, no padding
  TextStream text;

  int64_t new_tokens() const { return static_cast<int64_t>(slot.completion.ids.size()); }
  Position position() const { return {context, new_tokens(), slot.task->limit}; }
};

class RowBatch final : public Batch {
 public:
  RowBatch(const Work& work, std::span<Slot> slots) : work_(work), chooser_(work.config) {
    for (Slot& slot : slots) rows_.emplace_back(slot, work);
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
    take(logits);
  }

  bool step() override {
    drop_finished();
    if (alive_.empty()) return false;
    std::vector<TokenId> ids;
    for (const size_t i : alive_) ids.push_back(rows_[i].context.back());
    take(work_.decoder.step(ids));
    return true;
  }

 private:
  /// Chooses the next token of every running row from logits [B, V].
  void take(at::Tensor logits) {
    const bool logprobs = work_.options.logprobs;
    at::Tensor log_sums;  // of the model's own distribution, before anything changes it
    if (logprobs) log_sums = at::logsumexp(logits, -1).cpu();
    std::vector<TokenId> chosen(alive_.size());
    std::vector<float> scores(alive_.size());
    if (chooser_.plain_greedy()) {
      // On the device: one id per row comes back instead of V logits.
      const auto [best, ids] = logits.max(-1);
      const auto best_cpu = best.cpu(), ids_cpu = ids.cpu();
      for (size_t b = 0; b < alive_.size(); ++b) {
        chosen[b] = static_cast<TokenId>(ids_cpu.data_ptr<int64_t>()[b]);
        scores[b] = best_cpu.data_ptr<float>()[b];
        if (!std::isfinite(scores[b])) logits_not_finite(scores[b]);
      }
    } else {
      logits = logits.cpu().contiguous();
      const auto V = static_cast<size_t>(logits.size(1));
      for (size_t b = 0; b < alive_.size(); ++b) {
        const Row& row = rows_[alive_[b]];
        const auto scores_of_row = std::span(logits.data_ptr<float>() + b * V, V);
        if (logprobs) raw_.assign(scores_of_row.begin(), scores_of_row.end());
        chooser_.process(scores_of_row, row.position());
        chosen[b] = chooser_.choose(stream_of(row), row.new_tokens());
        scores[b] = logprobs ? raw_[chosen[b]] : 0.0f;
      }
    }
    for (size_t b = 0; b < alive_.size(); ++b) {
      Row& row = rows_[alive_[b]];
      if (logprobs) row.slot.completion.logprobs.push_back(scores[b] - log_sums.data_ptr<float>()[b]);
      accept(row, chosen[b]);
    }
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
    if (!alive_.empty()) work_.decoder.select(kept);
  }

  const Work work_;
  Chooser chooser_;
  std::vector<Row> rows_;
  std::vector<size_t> alive_;  // rows still running, in the decoder's order
  std::vector<float> raw_;
};

}  // namespace

std::unique_ptr<Batch> make_row_batch(const Work& work, std::span<Slot> slots) {
  return std::make_unique<RowBatch>(work, slots);
}

}  // namespace llmtk::generate
