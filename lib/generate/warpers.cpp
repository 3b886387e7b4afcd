#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/error.h"
#include "generate/logits.h"

namespace llmtk::generate {
namespace {

float largest(std::span<const float> scores) { return *std::max_element(scores.begin(), scores.end()); }

/// The k-th largest of `scores`, counted from 1.
float kth_largest(std::vector<float> scores, int64_t k) {
  const auto at = scores.begin() + (std::min<int64_t>(k, static_cast<int64_t>(scores.size())) - 1);
  std::nth_element(scores.begin(), at, scores.end(), std::greater<>());
  return *at;
}

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

/// -log p of each candidate.
std::vector<float> negative_log_probabilities(const Candidates& candidates) {
  const float top = largest(candidates.scores);
  double sum = 0;
  for (const float score : candidates.scores) sum += std::exp(score - top);
  const float log_sum = top + static_cast<float>(std::log(sum));
  std::vector<float> information(candidates.size());
  for (size_t i = 0; i < information.size(); ++i) information[i] = log_sum - candidates.scores[i];
  return information;
}

double entropy(const std::vector<float>& information, const std::vector<float>& probability) {
  double sum = 0;
  for (size_t i = 0; i < information.size(); ++i) sum += static_cast<double>(information[i]) * probability[i];
  return sum;
}

/// Keeps what is at least so probable, and the `keep` best.
void cut_below(Candidates& candidates, float least, int64_t keep) {
  const auto probability = probabilities(candidates);
  const float kth = kth_largest(candidates.scores, keep);
  filter(candidates, [&](size_t i) { return probability[i] >= least || candidates.scores[i] >= kth; });
}

}  // namespace

void Candidates::assign(std::span<const float> logits) {
  constexpr float kRemoved = -std::numeric_limits<float>::infinity();
  ids.resize(logits.size());
  scores.resize(logits.size());
  size_t kept = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float score = logits[i];
    if (score == kRemoved) continue;
    if (!std::isfinite(score)) logits_not_finite(score);
    ids[kept] = static_cast<TokenId>(i);
    scores[kept++] = score;
  }
  if (kept == 0) logits_not_finite(kRemoved);
  ids.resize(kept);
  scores.resize(kept);
}

void apply_temperature(Candidates& candidates, double temperature) {
  const auto divisor = static_cast<float>(temperature);
  for (float& score : candidates.scores) score /= divisor;
}

void apply_top_k(Candidates& candidates, int64_t k, int64_t keep) {
  k = std::max(k, keep);
  if (static_cast<size_t>(k) >= candidates.size()) return;
  const float kth = kth_largest(candidates.scores, k);
  filter(candidates, [&](size_t i) { return candidates.scores[i] >= kth; });
}

void apply_top_p(Candidates& candidates, double p, int64_t keep) {
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
    if (i >= static_cast<size_t>(keep) && static_cast<float>(total - above) <= threshold) break;
    kept[order[i]] = true;
    above += probability[order[i]];
  }
  filter(candidates, [&](size_t i) { return kept[i]; });
}

void apply_min_p(Candidates& candidates, double min_p, int64_t keep) {
  const auto probability = probabilities(candidates);
  const float threshold = static_cast<float>(min_p) * largest(probability);
  const float floor = std::min(threshold, kth_largest(probability, keep));
  filter(candidates, [&](size_t i) { return probability[i] >= floor; });
}

void apply_typical_p(Candidates& candidates, double p, int64_t keep) {
  const auto probability = probabilities(candidates);
  const auto information = negative_log_probabilities(candidates);
  const auto expected = static_cast<float>(entropy(information, probability));
  const auto size = candidates.size();
  std::vector<float> distance(size);
  for (size_t i = 0; i < size; ++i) distance[i] = std::abs(information[i] - expected);
  std::vector<uint32_t> order(size);
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return distance[a] < distance[b]; });
  double mass = 0;
  size_t last = 0;
  for (; last + 1 < size; ++last) {
    mass += probability[order[last]];
    if (!(static_cast<float>(mass) < static_cast<float>(p))) break;
  }
  std::vector<bool> kept(size);
  for (size_t i = 0; i < size; ++i)
    kept[order[i]] = i < static_cast<size_t>(keep) || distance[order[i]] <= distance[order[last]];
  filter(candidates, [&](size_t i) { return kept[i]; });
}

void apply_epsilon_cutoff(Candidates& candidates, double epsilon, int64_t keep) {
  cut_below(candidates, static_cast<float>(epsilon), keep);
}

void apply_eta_cutoff(Candidates& candidates, double eta, int64_t keep) {
  const double nats = entropy(negative_log_probabilities(candidates), probabilities(candidates));
  cut_below(candidates, static_cast<float>(std::min(eta, std::sqrt(eta) * std::exp(-nats))), keep);
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

}  // namespace llmtk::generate
