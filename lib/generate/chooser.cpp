#include "generate/chooser.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "generate/random.h"

namespace llmtk::generate {
namespace {

/// NoBadWordsLogitsProcessor: an eos alone cannot be forbidden.
std::vector<SequenceBias> forbidden_words(const GenerationConfig& config) {
  std::vector<SequenceBias> words;
  for (const auto& ids : config.bad_words_ids) {
    const bool eos = ids.size() == 1 && std::ranges::find(config.eos_token_ids, ids[0]) != config.eos_token_ids.end();
    if (!eos) words.push_back({ids, -std::numeric_limits<double>::infinity()});
  }
  return words;
}

bool is_plain(const GenerationConfig& c) {
  return c.repetition_penalty == 1.0 && c.presence_penalty == 0 && c.frequency_penalty == 0 &&
         c.no_repeat_ngram_size == 0 && c.sequence_bias.empty() && c.bad_words_ids.empty() &&
         c.suppress_tokens.empty() && c.begin_suppress_tokens.empty() && !c.forced_bos_token_id &&
         c.forced_eos_token_ids.empty() && c.min_new_tokens.value_or(c.min_length) == 0 &&
         !c.exponential_decay_length_penalty;
}

}  // namespace

Chooser::Chooser(const GenerationConfig& config)
    : config_(config), bad_words_(forbidden_words(config)), plain_(is_plain(config)) {}

void Chooser::penalize(std::span<float> logits, const Position& position) const {
  const auto& [context, new_tokens, limit] = position;
  const auto prompt_tokens = static_cast<int64_t>(context.size()) - new_tokens;
  apply_sequence_bias(logits, context, config_.sequence_bias);
  if (config_.repetition_penalty != 1.0) apply_repetition_penalty(logits, context, config_.repetition_penalty);
  if (config_.presence_penalty != 0 || config_.frequency_penalty != 0)
    apply_presence_penalties(logits, context.last(static_cast<size_t>(new_tokens)), config_.presence_penalty,
                             config_.frequency_penalty);
  if (config_.no_repeat_ngram_size > 0) forbid_repeated_ngrams(logits, context, config_.no_repeat_ngram_size);
  apply_sequence_bias(logits, context, bad_words_);
  if (new_tokens < config_.new_tokens_minimum(prompt_tokens)) forbid(logits, config_.eos_token_ids);
  if (config_.forced_bos_token_id && context.size() == 1) force(logits, std::span(&*config_.forced_bos_token_id, 1));
  if (!config_.forced_eos_token_ids.empty() && new_tokens == limit - 1) force(logits, config_.forced_eos_token_ids);
  if (const auto& decay = config_.exponential_decay_length_penalty; decay && new_tokens > decay->start)
    apply_length_decay(logits, config_.eos_token_ids, decay->factor, new_tokens - decay->start);
  forbid(logits, config_.suppress_tokens);
  // A forced first token is no beginning that could be suppressed: then it is the second one.
  const int64_t begin = prompt_tokens > 1 || !config_.forced_bos_token_id ? 0 : 1;
  if (new_tokens == begin) forbid(logits, config_.begin_suppress_tokens);
}

void Chooser::warp(std::span<const float> scores) {
  candidates_.assign(scores);
  // Beams need a token beside every eos, to go on with.
  const int64_t keep =
      config_.num_beams > 1 ? std::max<int64_t>(2, static_cast<int64_t>(config_.eos_token_ids.size()) + 1) : 1;
  if (config_.temperature != 1.0) apply_temperature(candidates_, config_.temperature);
  if (config_.top_k != 0) apply_top_k(candidates_, config_.top_k, keep);
  if (config_.top_p < 1.0) apply_top_p(candidates_, config_.top_p, keep);
  if (config_.min_p) apply_min_p(candidates_, *config_.min_p, keep);
  if (config_.typical_p < 1.0) apply_typical_p(candidates_, config_.typical_p, keep);
  if (config_.epsilon_cutoff > 0) apply_epsilon_cutoff(candidates_, config_.epsilon_cutoff, keep);
  if (config_.eta_cutoff > 0) apply_eta_cutoff(candidates_, config_.eta_cutoff, keep);
}

void Chooser::process(std::span<float> logits, const Position& position) {
  if (!plain_) penalize(logits, position);
  if (config_.do_sample)
    warp(logits);
  else
    candidates_.assign(logits);
}

TokenId Chooser::choose(uint64_t row, int64_t new_tokens) const {
  const auto& [ids, scores] = candidates_;
  const auto best = std::max_element(scores.begin(), scores.end());
  if (!config_.do_sample) return ids[best - scores.begin()];
  double total = 0;
  for (const float score : scores) total += std::exp(static_cast<double>(score) - *best);
  const double target = uniform(config_.seed, row, static_cast<uint64_t>(new_tokens)) * total;
  double sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    sum += std::exp(static_cast<double>(scores[i]) - *best);
    if (sum > target) return ids[i];
  }
  return ids[best - scores.begin()];  // rounding of the sum
}

}  // namespace llmtk::generate
