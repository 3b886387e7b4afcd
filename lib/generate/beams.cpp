#include "generate/beams.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace llmtk::generate {
namespace {

using text::TokenId;

constexpr float kOut = -1e9f;  ///< added to the score of what must not be chosen

/// Indices of the `count` largest scores, largest first; equal ones in the order in which torch has them.
std::vector<int64_t> best_of(const std::vector<float>& scores, size_t count) {
  const auto indices = std::get<1>(at::topk(at::tensor(scores), static_cast<int64_t>(count)));
  const auto* data = indices.data_ptr<int64_t>();
  return {data, data + indices.numel()};
}

float by_length(float score, int64_t length, double penalty) {
  return score / static_cast<float>(std::pow(static_cast<double>(length), penalty));
}

}  // namespace

int64_t continuations_needed(const GenerationConfig& config) {
  return std::max<int64_t>(2, 1 + static_cast<int64_t>(config.eos_token_ids.size())) * config.num_beams;
}

Beams::Beams(const Task& task, const GenerationConfig& config, const text::Tokenizer& tokenizer)
    : task_(&task), config_(&config), tokenizer_(&tokenizer) {
  Beam beam{.context = task.context};
  if (!config.stop_strings.empty()) beam.text.emplace(tokenizer, config.stop_strings, task.begins);
  for (int64_t i = 0; i < config.num_beams; ++i) {
    running_.push_back(beam);
    running_.back().score = i == 0 ? 0.0f : kOut;
    finished_.push_back(beam);
    finished_.back().score = kOut;
  }
}

void Beams::advance(const std::vector<Continuation>& continuations) {
  LLMTK_CHECK(!done_ && continuations.size() >= running_.size(), continuations.size(), " continuations");
  ++new_tokens_;
  std::vector<Beam> offered;
  std::vector<bool> ended;
  for (const auto& continuation : continuations) {
    offered.push_back(extended(continuation));
    ended.push_back(ends(offered.back()));
  }
  keep_finished(offered, ended);
  keep_running(offered, ended);
  may_improve_ = may_improve_ && may_improve();
  const bool enough = all_finished() && config_->early_stopping == EarlyStopping::yes;
  done_ = !may_improve_ || enough || std::ranges::all_of(ended, [](bool end) { return end; });
}

Beams::Beam Beams::extended(const Continuation& continuation) const {
  const Beam& from = running_[static_cast<size_t>(continuation.beam)];
  Beam beam{
      .context = from.context, .logprobs = from.logprobs, .score = continuation.score, .parent = continuation.beam};
  beam.context.push_back(continuation.id);
  beam.logprobs.push_back(continuation.logprob);
  if (from.text) {
    beam.text.emplace(*from.text);
    if (!from.text->stopped_by()) beam.text->push(continuation.id);
  }
  return beam;
}

bool Beams::ends(const Beam& beam) const {
  return new_tokens_ >= task_->limit || (beam.text && beam.text->stopped_by()) ||
         std::ranges::find(config_->eos_token_ids, beam.context.back()) != config_->eos_token_ids.end();
}

/// The best that have not ended; where there are too few, ended ones that no other can be worse than.
void Beams::keep_running(const std::vector<Beam>& offered, const std::vector<bool>& ended) {
  std::vector<float> scores;
  for (size_t i = 0; i < offered.size(); ++i) scores.push_back(ended[i] ? offered[i].score + kOut : offered[i].score);
  std::vector<Beam> running;
  for (const int64_t i : best_of(scores, running_.size())) {
    running.push_back(offered[static_cast<size_t>(i)]);
    running.back().score = scores[static_cast<size_t>(i)];
  }
  running_ = std::move(running);
}

/// Of what has ended among the first num_beams, and what was finished before, the best.
void Beams::keep_finished(const std::vector<Beam>& offered, const std::vector<bool>& ended) {
  const bool closed = (all_finished() && config_->early_stopping == EarlyStopping::yes) || !may_improve_;
  std::vector<Beam> all = finished_;
  std::vector<float> scores;
  for (const Beam& beam : all) scores.push_back(beam.score);
  for (size_t i = 0; i < offered.size(); ++i) {
    Beam& beam = all.emplace_back(offered[i]);
    beam.finished = ended[i] && i < running_.size();
    scores.push_back(by_length(beam.score, new_tokens_, config_->length_penalty));
    if (closed) scores.back() += kOut;
    if (!beam.finished) scores.back() += kOut;
  }
  std::vector<Beam> kept;
  for (const int64_t i : best_of(scores, finished_.size())) {
    kept.push_back(std::move(all[static_cast<size_t>(i)]));
    kept.back().score = scores[static_cast<size_t>(i)];
  }
  finished_ = std::move(kept);
}

/// Whether the best running beam could still become better than the worst finished one. With a length_penalty that is a
/// guess, as in transformers: it takes today's length, or with early_stopping "never" the longest that helps.
bool Beams::may_improve() const {
  const bool longest = config_->early_stopping == EarlyStopping::never && config_->length_penalty > 0;
  const float possible = by_length(running_[0].score, longest ? task_->limit : new_tokens_, config_->length_penalty);
  const float worst = std::ranges::min_element(finished_, {}, &Beam::score)->score;
  return std::ranges::any_of(finished_, [&](const Beam& b) { return possible > (b.finished ? worst : kOut); });
}

bool Beams::all_finished() const { return std::ranges::all_of(finished_, &Beam::finished); }

void Beams::fill(Completion& completion, size_t rank) const {
  const Beam& beam = finished_.at(rank);
  completion.ids.assign(beam.context.begin() + static_cast<std::ptrdiff_t>(task_->context.size()), beam.context.end());
  completion.logprobs = beam.logprobs;
  completion.score = beam.score;
  TextStream stream(*tokenizer_, config_->stop_strings, task_->begins);
  for (size_t i = 0; i < completion.ids.size() && !stream.stopped_by(); ++i) stream.push(completion.ids[i]);
  stream.finish();
  completion.text = stream.text();
  const bool eos = !completion.ids.empty() &&
                   std::ranges::find(config_->eos_token_ids, completion.ids.back()) != config_->eos_token_ids.end();
  completion.finish_reason = eos                   ? FinishReason::eos
                             : stream.stopped_by() ? FinishReason::stop_string
                                                   : FinishReason::length;
  if (stream.stopped_by()) completion.stop_string = *stream.stopped_by();
}

}  // namespace llmtk::generate
