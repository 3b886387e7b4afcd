#include "generate/config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmtk::generate {
namespace {

using text::TokenId;

[[noreturn]] void out_of_range(const char* flag, const std::string& got, const char* expected, std::string hint = {}) {
  throw Error(
      Exit::usage,
      {.what = std::string(flag) + " is out of range", .got = got, .expected = expected, .hint = std::move(hint)});
}

std::string text_of(double value) { return nlohmann::json(value).dump(); }

void check_lengths(const GenerationConfig& c) {
  if (c.max_new_tokens && *c.max_new_tokens < 1)
    out_of_range("--max-new-tokens", std::to_string(*c.max_new_tokens), "at least 1");
  if (c.max_length && *c.max_length < 1) out_of_range("--max-length", std::to_string(*c.max_length), "at least 1");
  if (c.min_new_tokens && *c.min_new_tokens < 0)
    out_of_range("--min-new-tokens", std::to_string(*c.min_new_tokens), "at least 0");
  if (c.max_new_tokens && c.min_new_tokens && *c.min_new_tokens > *c.max_new_tokens)
    out_of_range("--min-new-tokens", std::to_string(*c.min_new_tokens), "at most --max-new-tokens");
  if (c.min_length < 0) out_of_range("--min-length", std::to_string(c.min_length), "at least 0");
  if (const auto& decay = c.exponential_decay_length_penalty)
    if (decay->start < 0 || !(decay->factor > 0) || !std::isfinite(decay->factor))
      out_of_range("--exponential-decay-length-penalty", std::to_string(decay->start) + " " + text_of(decay->factor),
                   "a number of tokens, at least 0, and a factor, more than 0");
}

void check_penalties(const GenerationConfig& c) {
  if (!(c.repetition_penalty > 0) || !std::isfinite(c.repetition_penalty))
    out_of_range("--repetition-penalty", text_of(c.repetition_penalty), "more than 0; 1 is none");
  if (!std::isfinite(c.presence_penalty))
    out_of_range("--presence-penalty", text_of(c.presence_penalty), "a number; 0 is none");
  if (!std::isfinite(c.frequency_penalty))
    out_of_range("--frequency-penalty", text_of(c.frequency_penalty), "a number; 0 is none");
  if (c.no_repeat_ngram_size < 0)
    out_of_range("--no-repeat-ngram-size", std::to_string(c.no_repeat_ngram_size), "at least 1, or 0 for none");
  const auto suppressed = [&](TokenId id) {
    return std::ranges::find(c.suppress_tokens, id) != c.suppress_tokens.end();
  };
  const bool no_bos = c.forced_bos_token_id && suppressed(*c.forced_bos_token_id);
  const bool no_eos = !c.forced_eos_token_ids.empty() && std::ranges::all_of(c.forced_eos_token_ids, suppressed);
  if (no_bos || no_eos)
    throw Error(Exit::usage, {.what = std::string(no_bos ? "--forced-bos-token-id" : "--forced-eos-token-id") +
                                      " is a token that --suppress-tokens forbids",
                              .hint = "to keep the text from ending early use --min-new-tokens"});
}

void check_sampling(const GenerationConfig& c) {
  // Configs of models that take the most probable token say temperature 0.
  if (!std::isfinite(c.temperature) || c.temperature < 0 || (c.do_sample && c.temperature == 0))
    out_of_range("--temperature", text_of(c.temperature), "more than 0",
                 "for the most probable token at every step use --no-do-sample");
  if (c.top_k < 0) out_of_range("--top-k", std::to_string(c.top_k), "at least 1, or 0 for all tokens");
  if (!(c.top_p >= 0 && c.top_p <= 1)) out_of_range("--top-p", text_of(c.top_p), "from 0 to 1");
  if (c.min_p && !(*c.min_p >= 0 && *c.min_p <= 1)) out_of_range("--min-p", text_of(*c.min_p), "from 0 to 1");
  if (!(c.typical_p > 0 && c.typical_p <= 1))
    out_of_range("--typical-p", text_of(c.typical_p), "more than 0, at most 1");
  if (!(c.epsilon_cutoff >= 0 && c.epsilon_cutoff < 1))
    out_of_range("--epsilon-cutoff", text_of(c.epsilon_cutoff), "at least 0, less than 1");
  if (!(c.eta_cutoff >= 0 && c.eta_cutoff < 1))
    out_of_range("--eta-cutoff", text_of(c.eta_cutoff), "at least 0, less than 1");
}

void check_sequences(const GenerationConfig& c) {
  const std::string asked = std::to_string(c.num_return_sequences);
  if (c.num_beams < 1) out_of_range("--num-beams", std::to_string(c.num_beams), "at least 1");
  if (!std::isfinite(c.length_penalty)) out_of_range("--length-penalty", text_of(c.length_penalty), "a number");
  if (c.num_return_sequences < 1) out_of_range("--num-return-sequences", asked, "at least 1");
  if (c.num_beams > 1 && c.num_return_sequences > c.num_beams)
    out_of_range("--num-return-sequences", asked, "at most --num-beams");
  if (c.num_return_sequences > 1 && c.num_beams == 1 && !c.do_sample)
    throw Error(Exit::usage, {.what = "--num-return-sequences above 1 without sampling gives the same text each time",
                              .got = asked,
                              .hint = "add --do-sample, or --num-beams"});
}

}  // namespace

int64_t GenerationConfig::new_tokens_limit(int64_t tokens) const {
  if (max_new_tokens) return *max_new_tokens;
  if (max_length) return *max_length - tokens;
  return kDefaultNewTokens;
}

int64_t GenerationConfig::new_tokens_minimum(int64_t tokens) const {
  return min_new_tokens ? *min_new_tokens : min_length - tokens;
}

void GenerationConfig::validate() const {
  check_lengths(*this);
  check_penalties(*this);
  check_sampling(*this);
  check_sequences(*this);
  for (const auto& stop : stop_strings)
    if (stop.empty()) throw Error(Exit::usage, {.what = "--stop is empty", .expected = "at least one character"});
}

void GenerationConfig::check_ids(int64_t vocab_size) const {
  const auto check = [&](const char* setting, const std::vector<TokenId>& ids) {
    for (const TokenId id : ids)
      if (id < 0 || id >= vocab_size)
        throw Error(Exit::usage, {.what = std::string(setting) + " holds an id that the model does not know",
                                  .got = std::to_string(id),
                                  .expected = "less than vocab_size " + std::to_string(vocab_size)});
  };
  for (const auto& word : bad_words_ids) check("bad_words_ids", word);
  for (const auto& biased : sequence_bias) check("sequence_bias", biased.ids);
  if (bos_token_id >= 0) check("bos_token_id", {bos_token_id});
  if (decoder_start_token_id >= 0) check("decoder_start_token_id", {decoder_start_token_id});
  if (forced_bos_token_id) check("forced_bos_token_id", {*forced_bos_token_id});
  check("forced_eos_token_id", forced_eos_token_ids);
}

}  // namespace llmtk::generate
