#pragma once
// How a model is asked to write. Names, meanings and defaults are those of transformers' GenerationConfig.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::generate {

inline constexpr int64_t kDefaultNewTokens = 20;  ///< where neither max_new_tokens nor max_length is said

struct GenerationConfig {
  // How long.
  std::optional<int64_t> max_new_tokens;  ///< wins over max_length
  std::optional<int64_t> max_length;      ///< prompt and continuation together
  int64_t min_new_tokens = 0;             ///< eos cannot come before

  // Which token comes next. All but repetition_penalty matter only with do_sample.
  bool do_sample = false;  ///< false: the most probable token (greedy)
  double repetition_penalty = 1.0;
  double temperature = 1.0;
  int64_t top_k = 50;  ///< 0: off
  double top_p = 1.0;
  std::optional<double> min_p;
  double typical_p = 1.0;
  uint64_t seed = 0;  ///< row i draws from a stream that (seed, i) determines

  // When it ends.
  std::vector<text::TokenId> eos_token_ids;
  std::vector<std::string> stop_strings;

  text::TokenId bos_token_id = -1;  ///< what an empty prompt starts with
  int64_t num_return_sequences = 1;

  /// New tokens allowed after a prompt of `prompt_tokens`; not positive when max_length leaves no room.
  int64_t new_tokens_limit(int64_t prompt_tokens) const;
  /// Throws Error(usage) that names the first value out of its range and the flag that sets it.
  void validate() const;

  bool operator==(const GenerationConfig&) const = default;
};

/// Reads the object that generation_config.json holds (or config.json: eos_token_id and bos_token_id stand there in old
/// folders). Settings that llmtk does not have and that would change the text are collected in `ignored`, for a
/// warning; a value of a wrong type throws Error(file) naming `where` and the key.
GenerationConfig config_from_hf(const nlohmann::json& json, const std::string& where,
                                std::vector<std::string>& ignored);

/// The model folder's generation_config.json, completed from its config.json and, unless that is null, by
/// adopt_special_tokens; warns about what was ignored. A folder without generation_config.json gives the defaults.
GenerationConfig load_config(const std::filesystem::path& folder, const text::Tokenizer* tokenizer);

/// The tokenizer's eos and bos where the model's files say none.
void adopt_special_tokens(GenerationConfig& config, const text::Tokenizer& tokenizer);

}  // namespace llmtk::generate
