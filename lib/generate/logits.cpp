#include "generate/logits.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "generate/random.h"

namespace llmtk::generate {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

float largest(std::span<const float> scores) { return *std::max_element(scores.begin(), scores.end()); }

/// Keeps the candidates for which `keep(i)` holds; order stays.
template <class Keep>
void filter(Candidates& candidates, Keep&& keep) {
  size_t kept = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!keep(i)) continue;
    candidates.ids[kept] = candidates.ids[i];
    candidates.scores[kept] = candidates.scores[i];
    ++kept;
  }
  candidates.ids.resize(kept);
  candidates.scores.resize(kept);
}

}  // namespace

void Candidates::assign(std::span<const float> logits) {
  ids.resize(logits.size());
  scores.resize(logits.size());
  size_t kept = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float score = logits[i];
    if (score == kNegativeInfinity) continue;
    if (!std::isfinite(score)) logits_not_finite(score);
    ids[kept] = static_cast<TokenId>(i);
    scores[kept++] = score;
  }
  if (kept == 0) logits_not_finite(kNegativeInfinity);
  ids.resize(kept);
  scores.resize(kept);
}

void logits_not_finite(float got) {
  throw Error(Exit::diverged, {.what = "the model's logits are not numbers one can choose by",
                               .got = std::isnan(got) ? "NaN"
                                      : got > 0       ? "infinity"
                                                      : "-infinity everywhere",
                               .expected = "finite logits",
                               .hint = "the weights may be broken; or a 16-bit type overflows: try --dtype float32"});
}

void apply_repetition_penalty(std::span<float> logits, std::span<const TokenId> context, double penalty) {
  const auto factor = static_cast<float>(penalty);
  // Read every score before the first is written: a token that occurs twice is penalised once.
  std::vector<float> changed(context.size());
  for (size_t i = 0; i < context.size(); ++i) {
    LLMTK_CHECK(context[i] >= 0 && static_cast<size_t>(context[i]) < logits.size(), "token ", context[i]);
    const float score = logits[context[i]];
    changed[i] = score < 0 ? score * factor : score / factor;
  }
  for (size_t i = 0; i < context.size(); ++i) logits[context[i]] = changed[i];
}

void forbid(std::span<float> logits, std::span<const TokenId> ids) {
  for (const TokenId id : ids)
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[id] = kNegativeInfinity;
}

void apply_temperature(Candidates& candidates, double temperature) {
  const auto divisor = static_cast<float>(temperature);
  for (float& score : candidates.scores) score /= divisor;
}

void apply_top_k(Candidates& candidates, int64_t k) {
  if (static_cast<size_t>(k) >= candidates.size()) return;
  std::vector<float> scores = candidates.scores;
  std::nth_element(scores.begin(), scores.begin() + (k - 1), scores.end(), std::greater<>());
  const float kth = scores[k - 1];
  filter(candidates, [&](size_t i) { return candidates.scores[i] >= kth; });
}

void apply_top_p(Candidates& candidates, double p) {
  const auto probability = probabilities(candidates);
  const double total = std::accumulate(probability.begin(), probability.end(), 0.0);
  const auto threshold = static_cast<float>(1 - p);
  std::vector<uint32_t> order(candidates.size());
  std::iota(order.begin(), order.end(), 0u);
  // Which of several equal scores torch.sort puts first is left open there; here the lower id does.
  const auto before = [&](uint32_t a, uint32_t b) {
    return candidates.scores[a] != candidates.scores[b] ? candidates.scores[a] > candidates.scores[b] : a < b;
  };
  std::vector<bool> kept(candidates.size(), false);
  double above = 0;  // mass of the tokens before this one
  size_t sorted = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == sorted) {  // the nucleus is usually small: sort a little, and more only when it is needed
      const size_t next = std::min(order.size(), std::max<size_t>(256, sorted * 4));
      std::partial_sort(order.begin() + sorted, order.begin() + next, order.end(), before);
      sorted = next;
    }
    // The mass of this token and all below it; transformers removes it while that is at most 1 - p.
    if (i > 0 && static_cast<float>(total - above) <= threshold) break;
    kept[order[i]] = true;
    above += probability[order[i]];
  }
  filter(candidates, [&](size_t i) { return kept[i]; });
}

void apply_min_p(Candidates& candidates, double min_p) {
  const auto probability = probabilities(candidates);
  const float best = largest(probability);
  const float threshold = static_cast<float>(min_p) * best;
  filter(candidates, [&](size_t i) { return probability[i] == best || probability[i] >= threshold; });
}

void apply_typical_p(Candidates& candidates, double p) {
  const auto probability = probabilities(candidates);
  const auto size = candidates.size();
  std::vector<float> information(size);  // -log p
  double entropy = 0;
  const float top = largest(candidates.scores);
  double sum = 0;
  for (const float score : candidates.scores) sum += std::exp(score - top);
  const float log_sum = top + static_cast<float>(std::log(sum));
  for (size_t i = 0; i < size; ++i) {
    information[i] = log_sum - candidates.scores[i];
    entropy += static_cast<double>(information[i]) * probability[i];
  }
  std::vector<float> distance(size);
  for (size_t i = 0; i < size; ++i) distance[i] = std::abs(information[i] - static_cast<float>(entropy));
  std::vector<uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return distance[a] < distance[b]; });
  double mass = 0;
  size_t last = 0;
  for (; last + 1 < size; ++last) {
    mass += probability[order[last]];
    if (!(static_cast<float>(mass) < static_cast<float>(p))) break;
  }
  const float limit = distance[order[last]];
  const uint32_t nearest = order[0];
  filter(candidates, [&](size_t i) { return i == nearest || distance[i] <= limit; });
}

std::vector<float> probabilities(const Candidates& candidates) {
  const float top = largest(candidates.scores);
  std::vector<float> result(candidates.size());
  double sum = 0;
  for (size_t i = 0; i < result.size(); ++i) sum += result[i] = std::exp(candidates.scores[i] - top);
  const auto scale = static_cast<float>(1 / sum);
  for (float& value : result) value *= scale;
  return result;
}

bool Chooser::plain_greedy() const {
  return !config_.do_sample && config_.repetition_penalty == 1.0 && config_.min_new_tokens == 0;
}

void Chooser::process(std::span<float> logits, std::span<const TokenId> context, int64_t new_tokens) {
  if (config_.repetition_penalty != 1.0) apply_repetition_penalty(logits, context, config_.repetition_penalty);
  if (new_tokens < config_.min_new_tokens) forbid(logits, config_.eos_token_ids);
  candidates_.assign(logits);
  if (!config_.do_sample) return;
  if (config_.temperature != 1.0) apply_temperature(candidates_, config_.temperature);
  if (config_.top_k != 0) apply_top_k(candidates_, config_.top_k);
  if (config_.top_p < 1.0) apply_top_p(candidates_, config_.top_p);
  if (config_.min_p) apply_min_p(candidates_, *config_.min_p);
  if (config_.typical_p < 1.0) apply_typical_p(candidates_, config_.typical_p);
}

TokenId Chooser::choose(uint64_t row, int64_t new_tokens) const {
  const auto& [ids, scores] = candidates_;
  if (!config_.do_sample) return ids[std::max_element(scores.begin(), scores.end()) - scores.begin()];
  const float top = largest(scores);
  double total = 0;
  for (const float score : scores) total += std::exp(static_cast<double>(score) - top);
  const double target = uniform(config_.seed, row, static_cast<uint64_t>(new_tokens)) * total;
  double sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    sum += std::exp(static_cast<double>(scores[i]) - top);
    if (sum > target) return ids[i];
  }
  return ids[std::max_element(scores.begin(), scores.end()) - scores.begin()];  // rounding of the sum
}

}  // namespace llmtk::generate
