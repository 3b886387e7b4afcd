// Beam search and beam sampling: the model's part.

#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "generate/batch.h"
#include "generate/beams.h"
#include "generate/chooser.h"
#include "generate/random.h"

namespace llmtk::generate {
namespace {

using at::Tensor;
using text::TokenId;

/// One prompt's beams, and which of the decoder's rows holds each.
struct Group {
  Beams beams;
  std::span<Slot> slots;
  std::vector<int64_t> rows;
};

class BeamBatch final : public Batch {
 public:
  BeamBatch(const Work& work, std::span<Slot> slots) : work_(work), chooser_(work.config) {
    const auto sequences = static_cast<size_t>(work.config.num_return_sequences);
    for (size_t i = 0; i < slots.size(); i += sequences)
      groups_.push_back({Beams(*slots[i].task, work.config, work.tokenizer), slots.subspan(i, sequences), {}});
  }

  void start() override {
    std::vector<const std::vector<TokenId>*> prompts;
    int64_t longest = 0;
    for (Group& group : groups_) {
      // Every beam begins with its prompt's one row.
      group.rows.assign(group.beams.size(), static_cast<int64_t>(prompts.size()));
      prompts.push_back(&group.beams.task().prompt);
      longest = std::max(longest, group.beams.task().limit);
    }
    take(work_.decoder.start(prompts, longest));
  }

  bool step() override {
    drop_finished();
    if (groups_.empty()) return false;
    std::vector<int64_t> sources;
    for (Group& group : groups_) place(group, sources);
    work_.decoder.select(sources);
    std::vector<TokenId> ids(sources.size());
    for (const Group& group : groups_)
      for (size_t b = 0; b < group.rows.size(); ++b) ids[group.rows[b]] = group.beams.context(b).back();
    take(work_.decoder.step(ids));
    return true;
  }

 private:
  /// Gives the running beams of a group their rows behind those in `sources`, and appends what each row was before. A
  /// beam that alone goes on from its parent stays where the parent was, so that little has to be moved.
  static void place(Group& group, std::vector<int64_t>& sources) {
    const auto n = static_cast<int64_t>(group.beams.size());
    const auto begin = static_cast<int64_t>(sources.size());
    const int64_t first = *std::ranges::min_element(group.rows);
    constexpr int64_t kFree = -1;
    std::vector<int64_t> source_of(n, kFree), placed(n, kFree);
    for (int64_t b = 0; b < n; ++b) {
      const int64_t source = group.rows[group.beams.parent(b)];
      if (source_of[source - first] != kFree) continue;
      source_of[source - first] = source;
      placed[b] = begin + source - first;
    }
    for (int64_t b = 0, row = 0; b < n; ++b) {
      if (placed[b] != kFree) continue;
      while (source_of[row] != kFree) ++row;
      source_of[row] = group.rows[group.beams.parent(b)];
      placed[b] = begin + row;
    }
    sources.insert(sources.end(), source_of.begin(), source_of.end());
    group.rows = std::move(placed);
  }

  /// Chooses how the beams of every group go on, from the decoder's logits, [rows, V].
  void take(const Tensor& logits) {
    const Tensor log_probs = at::log_softmax(logits, -1);
    std::vector<int64_t> rows;
    std::vector<float> running;  // scores
    for (const Group& group : groups_) {
      rows.insert(rows.end(), group.rows.begin(), group.rows.end());
      for (size_t b = 0; b < group.beams.size(); ++b) running.push_back(group.beams.score(b));
    }
    Tensor scores = log_probs.index_select(0, at::tensor(rows, at::kLong).to(logits.device()));  // [groups * beams, V]
    if (!chooser_.plain() || work_.config.do_sample) scores = penalized(scores);
    const auto continuations =
        work_.config.do_sample ? drawn(scores) : best(scores + at::tensor(running).unsqueeze(1).to(scores.device()));
    for (size_t g = 0; g < groups_.size(); ++g)
      groups_[g].beams.advance(with_logprobs(continuations[g], groups_[g], log_probs));
    finish();
  }

  /// On the CPU, after the processors.
  Tensor penalized(const Tensor& scores) const {
    Tensor result = scores.cpu().contiguous();
    const auto V = static_cast<size_t>(result.size(1));
    float* row = result.data_ptr<float>();
    for (const Group& group : groups_)
      for (size_t b = 0; b < group.beams.size(); ++b, row += V)
        chooser_.penalize({row, V}, {group.beams.context(b), group.beams.new_tokens(), group.beams.task().limit});
    const bool renormalize = work_.config.renormalize_logits && !work_.config.do_sample;
    return renormalize ? at::log_softmax(result, -1) : result;
  }

  /// Of each group the best: totals [groups * beams, V].
  std::vector<std::vector<Continuation>> best(const Tensor& totals) const {
    const auto G = static_cast<int64_t>(groups_.size()), V = totals.size(1);
    const Tensor flat = totals.reshape({G, -1});  // [groups, beams * V]
    const int64_t K = std::min(continuations_needed(work_.config), flat.size(1));
    const auto [values, indices] = flat.topk(K);
    const Tensor values_cpu = values.cpu(), indices_cpu = indices.cpu();
    std::vector<std::vector<Continuation>> result(groups_.size());
    for (int64_t g = 0; g < G; ++g) {
      const float* value = values_cpu.data_ptr<float>() + g * K;
      const int64_t* index = indices_cpu.data_ptr<int64_t>() + g * K;
      if (!std::isfinite(value[0])) logits_not_finite(value[0]);
      for (int64_t k = 0; k < K; ++k)
        result[g].push_back({index[k] / V, static_cast<TokenId>(index[k] % V), value[k], 0.0f});
    }
    return result;
  }

  /// Of each group as many as are needed, drawn one after the other without putting back, in proportion to the
  /// probabilities of the beams with their next tokens. scores: [groups * beams, V], penalized.
  std::vector<std::vector<Continuation>> drawn(const Tensor& scores) {
    const auto V = static_cast<size_t>(scores.size(1));
    const float* row = scores.data_ptr<float>();
    std::vector<std::vector<Continuation>> result;
    for (const Group& group : groups_) {
      const auto n = group.beams.size();
      const uint64_t first_draw = static_cast<uint64_t>(group.beams.new_tokens()) * n * V;
      std::vector<std::pair<double, Continuation>> keyed;
      for (size_t b = 0; b < n; ++b, row += V) {
        chooser_.warp({row, V});
        const auto& [ids, warped] = chooser_.candidates();
        const float shift = work_.config.renormalize_logits ? log_sum(warped) : 0.0f;
        for (size_t i = 0; i < ids.size(); ++i) {
          const float total = warped[i] - shift + group.beams.score(b);
          // The largest of log-probabilities plus Gumbel noise are such a draw (Vieira 2014; Kool et al. 2019).
          const double u = uniform(work_.config.seed, group.beams.task().index, first_draw + b * V + ids[i]);
          keyed.push_back({total - std::log(-std::log(u)), {static_cast<int64_t>(b), ids[i], total, 0.0f}});
        }
      }
      result.push_back(largest_keys(std::move(keyed)));
    }
    return result;
  }

  static float log_sum(const std::vector<float>& scores) {
    const float top = *std::ranges::max_element(scores);
    double sum = 0;
    for (const float score : scores) sum += std::exp(static_cast<double>(score) - top);
    return top + static_cast<float>(std::log(sum));
  }

  std::vector<Continuation> largest_keys(std::vector<std::pair<double, Continuation>> keyed) const {
    const auto count = std::min(keyed.size(), static_cast<size_t>(continuations_needed(work_.config)));
    std::partial_sort(keyed.begin(), keyed.begin() + static_cast<std::ptrdiff_t>(count), keyed.end(),
                      [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<Continuation> result;
    for (size_t i = 0; i < count; ++i) result.push_back(keyed[i].second);
    // Where the processors leave fewer tokens than beams: some that are out of the race.
    while (result.size() < static_cast<size_t>(work_.config.num_beams))
      result.push_back({0, 0, -std::numeric_limits<float>::infinity(), 0.0f});
    return result;
  }

  /// What the model itself gave each token, before the processors; where it is asked for.
  std::vector<Continuation> with_logprobs(std::vector<Continuation> continuations, const Group& group,
                                          const Tensor& log_probs) const {
    if (!work_.options.logprobs) return continuations;
    std::vector<int64_t> places;
    for (const auto& c : continuations) places.push_back(group.rows[c.beam] * log_probs.size(1) + c.id);
    const Tensor values =
        log_probs.flatten().index_select(0, at::tensor(places, at::kLong).to(log_probs.device())).cpu();
    for (size_t i = 0; i < continuations.size(); ++i) continuations[i].logprob = values.data_ptr<float>()[i];
    return continuations;
  }

  void finish() {
    for (Group& group : groups_) {
      if (!group.beams.done()) continue;
      for (size_t s = 0; s < group.slots.size(); ++s) {
        Slot& slot = group.slots[s];
        group.beams.fill(slot.completion, s);
        if (!work_.options.logprobs) slot.completion.logprobs.clear();
        slot.done = true;
        if (work_.options.on_text && !slot.completion.text.empty())
          work_.options.on_text(slot.row, slot.completion.text);
      }
    }
  }

  void drop_finished() {
    std::erase_if(groups_, [](const Group& group) { return group.beams.done(); });
  }

  const Work work_;
  Chooser chooser_;
  std::vector<Group> groups_;  // those that are not done, in the decoder's order
};

}  // namespace

std::unique_ptr<Batch> make_beam_batch(const Work& work, std::span<Slot> slots) {
  return std::make_unique<BeamBatch>(work, slots);
}

}  // namespace llmtk::generate
