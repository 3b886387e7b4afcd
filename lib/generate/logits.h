#pragma once
// transformers' logits processors and warpers with their exact meaning, on one row of floats at a time.
//
// transformers sets a removed token's score to -inf and keeps all V of them through the chain. Here the first filter
// leaves a short list, and the rest of the chain works on that: top-k of 50 in a vocabulary of 150,000 costs one pass.

#include <cstdint>
#include <span>
#include <vector>

#include "generate/config.h"
#include "text/tokenizer.h"

namespace llmtk::generate {

using text::TokenId;

/// Throws Error(diverged).
[[noreturn]] void logits_not_finite(float got);

// --- processors (processors.cpp): with and without sampling. `context`: what the decoder has seen, without padding ---

/// SequenceBiasLogitsProcessor: adds the bias to the last id of a sequence whose other ids end the context. A sequence
/// longer than the context is left out.
void apply_sequence_bias(std::span<float> logits, std::span<const TokenId> context,
                         std::span<const SequenceBias> sequences);
/// RepetitionPenaltyLogitsProcessor (Keskar et al. 2019, CTRL, section 4.1): scores of tokens in `context` are divided
/// by `penalty` when positive and multiplied when negative, once however often the token occurs.
void apply_repetition_penalty(std::span<float> logits, std::span<const TokenId> context, double penalty);
/// OpenAI's penalties: a token that occurs c > 0 times in `written` loses presence + c * frequency.
void apply_presence_penalties(std::span<float> logits, std::span<const TokenId> written, double presence,
                              double frequency);
/// NoRepeatNGramLogitsProcessor: no token that would make a sequence of `size` tokens occur a second time.
void forbid_repeated_ngrams(std::span<float> logits, std::span<const TokenId> context, int64_t size);
/// MinLengthLogitsProcessor, SuppressTokensLogitsProcessor: -inf. Ids that are not in the vocabulary are left out.
void forbid(std::span<float> logits, std::span<const TokenId> ids);
/// ForcedBOSTokenLogitsProcessor, ForcedEOSTokenLogitsProcessor: 0 for these, -inf for all others.
void force(std::span<float> logits, std::span<const TokenId> ids);
/// ExponentialDecayLengthPenalty: |score| * (factor^past - 1) is added to each of `eos`, `past` tokens after the start.
void apply_length_decay(std::span<float> logits, std::span<const TokenId> eos, double factor, int64_t past);

// --- warpers (warpers.cpp): with do_sample only. At least `keep` tokens stay (min_tokens_to_keep) ---

/// The tokens that may still be chosen, ids ascending, with their scores.
struct Candidates {
  std::vector<TokenId> ids;
  std::vector<float> scores;

  size_t size() const { return ids.size(); }
  /// Every token of a row; those at -inf are left out. Calls logits_not_finite for NaN, for +inf and when all are -inf.
  void assign(std::span<const float> logits);
};

/// TemperatureLogitsWarper.
void apply_temperature(Candidates& candidates, double temperature);
/// TopKLogitsWarper (Fan et al. 2018): the k highest scores; all that equal the k-th stay.
void apply_top_k(Candidates& candidates, int64_t k, int64_t keep = 1);
/// TopPLogitsWarper (Holtzman et al. 2019): the smallest set of most probable tokens whose mass exceeds p.
void apply_top_p(Candidates& candidates, double p, int64_t keep = 1);
/// MinPLogitsWarper (Nguyen et al. 2024): tokens at least min_p times as probable as the most probable one.
void apply_min_p(Candidates& candidates, double min_p, int64_t keep = 1);
/// TypicalLogitsWarper (Meister et al. 2022): tokens whose information is nearest to the entropy, until their mass is
/// p.
void apply_typical_p(Candidates& candidates, double p, int64_t keep = 1);
/// EpsilonLogitsWarper (Hewitt et al. 2022): tokens at least so probable.
void apply_epsilon_cutoff(Candidates& candidates, double epsilon, int64_t keep = 1);
/// EtaLogitsWarper (Hewitt et al. 2022): tokens at least min(eta, sqrt(eta) * exp(-entropy)) probable.
void apply_eta_cutoff(Candidates& candidates, double eta, int64_t keep = 1);

/// Softmax of the candidates' scores.
std::vector<float> probabilities(const Candidates& candidates);

}  // namespace llmtk::generate
