#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

#include "core/error.h"
#include "generate/logits.h"

namespace llmtk::generate {
namespace {

constexpr float kForbidden = -std::numeric_limits<float>::infinity();

float& score_of(std::span<float> logits, TokenId id) {
  LLMTK_CHECK(id >= 0 && static_cast<size_t>(id) < logits.size(), "token ", id, " of ", logits.size());
  return logits[id];
}

bool ends_with(std::span<const TokenId> context, std::span<const TokenId> ids) {
  return context.size() >= ids.size() && std::ranges::equal(context.last(ids.size()), ids);
}

}  // namespace

void logits_not_finite(float got) {
  throw Error(Exit::diverged, {.what = "the model's logits are not numbers one can choose by",
                               .got = std::isnan(got) ? "NaN"
                                      : got > 0       ? "infinity"
                                                      : "-infinity everywhere",
                               .expected = "finite logits",
                               .hint = "the weights may be broken; or a 16-bit type overflows: try --dtype float32"});
}

void apply_sequence_bias(std::span<float> logits, std::span<const TokenId> context,
                         std::span<const SequenceBias> sequences) {
  for (const auto& [ids, bias] : sequences) {
    if (ids.size() > 1 && ids.size() > context.size()) continue;
    if (ends_with(context, std::span(ids).first(ids.size() - 1)))
      score_of(logits, ids.back()) += static_cast<float>(bias);
  }
}

void apply_repetition_penalty(std::span<float> logits, std::span<const TokenId> context, double penalty) {
  const auto factor = static_cast<float>(penalty);
  // Read every score before the first is written: a token that occurs twice is penalised once.
  std::vector<float> changed(context.size());
  for (size_t i = 0; i < context.size(); ++i) {
    const float score = score_of(logits, context[i]);
    changed[i] = score < 0 ? score * factor : score / factor;
  }
  for (size_t i = 0; i < context.size(); ++i) logits[context[i]] = changed[i];
}

void apply_presence_penalties(std::span<float> logits, std::span<const TokenId> written, double presence,
                              double frequency) {
  std::unordered_map<TokenId, int64_t> counts;
  for (const TokenId id : written) ++counts[id];
  for (const auto& [id, count] : counts)
    score_of(logits, id) -= static_cast<float>(presence + frequency * static_cast<double>(count));
}

void forbid_repeated_ngrams(std::span<float> logits, std::span<const TokenId> context, int64_t size) {
  const auto n = static_cast<size_t>(size);
  if (context.size() < n) return;
  const auto begun = context.last(n - 1);
  for (size_t i = 0; i + n <= context.size(); ++i)
    if (std::ranges::equal(context.subspan(i, n - 1), begun)) score_of(logits, context[i + n - 1]) = kForbidden;
}

void forbid(std::span<float> logits, std::span<const TokenId> ids) {
  for (const TokenId id : ids)
    if (id >= 0 && static_cast<size_t>(id) < logits.size()) logits[id] = kForbidden;
}

void force(std::span<float> logits, std::span<const TokenId> ids) {
  std::ranges::fill(logits, kForbidden);
  for (const TokenId id : ids) score_of(logits, id) = 0;
}

void apply_length_decay(std::span<float> logits, std::span<const TokenId> eos, double factor, int64_t past) {
  const auto growth = static_cast<float>(std::pow(factor, static_cast<double>(past)) - 1);
  for (const TokenId id : eos) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size() || logits[id] == kForbidden) continue;
    logits[id] += std::abs(logits[id]) * growth;
  }
}

}  // namespace llmtk::generate
