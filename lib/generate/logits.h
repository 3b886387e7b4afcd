#pragma once
// From logits to a token: transformers' logits processors and warpers with their exact meaning and order, on one row of
// floats at a time.
//
// transformers sets a removed token's score to -inf and keeps all V of them through the chain. Here the first filter
// leaves a short list, and the rest of the chain works on that: top-k of 50 in a vocabulary of 150,000 costs one pass.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "generate/config.h"
#include "text/tokenizer.h"

namespace llmtk::generate {

using text::TokenId;

/// The tokens that may still be chosen, ids ascending, with their scores.
struct Candidates {
  std::vector<TokenId> ids;
  std::vector<float> scores;

  size_t size() const { return ids.size(); }
  /// Every token of a row; those at -inf are left out. Calls logits_not_finite for NaN, for +inf and when all are -inf.
  void assign(std::span<const float> logits);
};

/// Throws Error(diverged).
[[noreturn]] void logits_not_finite(float got);

// --- processors: greedy decoding applies them too ---

/// RepetitionPenaltyLogitsProcessor (Keskar et al. 2019, CTRL, section 4.1): scores of tokens in `context` are divided
/// by `penalty` when positive and multiplied when negative, once however often the token occurs.
void apply_repetition_penalty(std::span<float> logits, std::span<const TokenId> context, double penalty);
/// MinNewTokensLengthLogitsProcessor: no eos yet.
void forbid(std::span<float> logits, std::span<const TokenId> ids);

// --- warpers: with do_sample only, in this order ---

/// TemperatureLogitsWarper.
void apply_temperature(Candidates& candidates, double temperature);
/// TopKLogitsWarper (Fan et al. 2018): the k highest scores; all that equal the k-th stay.
void apply_top_k(Candidates& candidates, int64_t k);
/// TopPLogitsWarper (Holtzman et al. 2019): the smallest set of most probable tokens whose mass exceeds p.
void apply_top_p(Candidates& candidates, double p);
/// MinPLogitsWarper (Nguyen et al. 2024): tokens at least min_p times as probable as the most probable one.
void apply_min_p(Candidates& candidates, double min_p);
/// TypicalLogitsWarper (Meister et al. 2022): tokens whose information is nearest to the entropy, until their mass is
/// p.
void apply_typical_p(Candidates& candidates, double p);

/// Softmax of the candidates' scores.
std::vector<float> probabilities(const Candidates& candidates);

/// The chain of one config. Stateless between calls apart from buffers: one object serves one thread.
class Chooser {
 public:
  explicit Chooser(const GenerationConfig& config) : config_(config) {}

  /// True when nothing changes the logits and nothing is drawn: the caller may take the argmax where the logits are.
  bool plain_greedy() const;
  /// Applies the chain to `logits` (changed in place) and leaves the rest in candidates(). `context`: prompt and what
  /// was written so far, without padding; the last `new_tokens` of it are new.
  void process(std::span<float> logits, std::span<const TokenId> context, int64_t new_tokens);
  const Candidates& candidates() const { return candidates_; }
  /// The next token of row `row` after process(): the best candidate, or one drawn from the stream (seed, row).
  TokenId choose(uint64_t row, int64_t new_tokens) const;

 private:
  const GenerationConfig& config_;
  Candidates candidates_;
};

}  // namespace llmtk::generate
