#pragma once
// The flags that say how a text is written, over what the model's generation_config.json says.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "generate/config.h"
#include "nn/model.h"

namespace llmtk {

/// What was not given leaves the model's own setting in force.
struct GenerationFlags {
  std::optional<int64_t> max_new_tokens, max_length, min_new_tokens, min_length;
  std::vector<std::string> stop_strings;
  std::vector<text::TokenId> eos_token_ids;
  std::optional<std::string> exponential_decay_length_penalty;

  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff;
  std::optional<int64_t> top_k;
  std::optional<uint64_t> seed;

  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<int64_t> no_repeat_ngram_size;
  std::vector<text::TokenId> suppress_tokens, begin_suppress_tokens, forced_eos_token_ids;
  std::optional<text::TokenId> forced_bos_token_id, decoder_start_token_id;
  std::optional<std::string> bad_words_ids, sequence_bias;  // JSON

  std::optional<int64_t> num_beams, num_return_sequences;
  std::optional<double> length_penalty;
  std::optional<std::string> early_stopping;
  std::optional<bool> renormalize_logits;
};

/// Adds them in groups.
void add_generation_flags(CLI::App& app, GenerationFlags& flags);
/// Puts the flags over `config`, draws a seed where one is needed and none given, and validates. Throws Error(usage)
/// for a value out of range, and for a flag that would have no influence.
void apply_flags(const GenerationFlags& flags, generate::GenerationConfig& config);
/// Throws Error(usage) for a flag that would have no influence on this model.
void check_flags(const GenerationFlags& flags, const nn::Model& model);

}  // namespace llmtk
