#pragma once
// How a model is asked to write. Names, meanings and defaults are those of transformers' GenerationConfig.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::generate {

inline constexpr int64_t kDefaultNewTokens = 20;  ///< where neither max_new_tokens nor max_length is said

/// When beam search ends before its longest text.
enum class EarlyStopping {
  no,    ///< when no running beam is likely to become better than the worst finished one
  yes,   ///< as soon as there are num_beams finished ones
  never  ///< when no running beam can become better any more
};

/// From `start` new tokens on eos becomes more probable, by `factor` to the power of the tokens since then.
struct LengthDecay {
  int64_t start = 0;
  double factor = 1.0;
  bool operator==(const LengthDecay&) const = default;
};

/// `ids` as the next tokens get `bias` added to the logit of the last one; minus infinity forbids them.
struct SequenceBias {
  std::vector<text::TokenId> ids;
  double bias = 0;
  bool operator==(const SequenceBias&) const = default;
};

struct GenerationConfig {
  // How long.
  std::optional<int64_t> max_new_tokens;  ///< wins over max_length
  std::optional<int64_t> max_length;      ///< prompt and continuation together; of an encoder-decoder, the decoder's
  std::optional<int64_t> min_new_tokens;  ///< eos cannot come before; wins over min_length
  int64_t min_length = 0;                 ///< counted as max_length is
  std::optional<LengthDecay> exponential_decay_length_penalty;

  // Which token comes next, with and without do_sample.
  bool do_sample = false;  ///< false: the most probable token (greedy), or the most probable beams
  double repetition_penalty = 1.0;
  double presence_penalty = 0;       ///< OpenAI's: subtracted from the logits of what was written already
  double frequency_penalty = 0;      ///< OpenAI's: subtracted as often as it was written
  int64_t no_repeat_ngram_size = 0;  ///< 0: off
  std::vector<SequenceBias> sequence_bias;
  std::vector<std::vector<text::TokenId>> bad_words_ids;
  std::vector<text::TokenId> suppress_tokens, begin_suppress_tokens;
  std::optional<text::TokenId> forced_bos_token_id;
  std::vector<text::TokenId> forced_eos_token_ids;

  // Only with do_sample.
  double temperature = 1.0;
  int64_t top_k = 50;  ///< 0: off
  double top_p = 1.0;
  std::optional<double> min_p;
  double typical_p = 1.0;
  double epsilon_cutoff = 0, eta_cutoff = 0;  ///< 0: off
  uint64_t seed = 0;                          ///< row i draws from a stream that (seed, i) determines

  // Several texts at once.
  int64_t num_beams = 1;
  double length_penalty = 1.0;  ///< a beam's score is its log-probability divided by its length to this power
  EarlyStopping early_stopping = EarlyStopping::no;
  bool renormalize_logits = false;  ///< log-softmax once more after all that changed the logits

  // When it ends.
  std::vector<text::TokenId> eos_token_ids;
  std::vector<std::string> stop_strings;

  text::TokenId bos_token_id = -1;            ///< what an empty prompt starts with
  text::TokenId decoder_start_token_id = -1;  ///< of encoder-decoders; -1: the model's own
  int64_t num_return_sequences = 1;

  /// New tokens allowed after a context of `tokens`; not positive when max_length leaves no room.
  int64_t new_tokens_limit(int64_t tokens) const;
  /// New tokens before which no eos may come, after a context of `tokens`.
  int64_t new_tokens_minimum(int64_t tokens) const;
  /// Throws Error(usage) that names the first value out of its range and the flag that sets it.
  void validate() const;
  /// Throws Error(usage) that names the first id of a setting that a model of `vocab_size` tokens does not know.
  void check_ids(int64_t vocab_size) const;

  bool operator==(const GenerationConfig&) const = default;
};

/// Reads the object that generation_config.json holds (or config.json: eos_token_id and bos_token_id stand there in old
/// folders). Settings that llmtk does not have and that would change the text are collected in `ignored`, for a
/// warning; a value of a wrong type throws Error(file) naming `where` and the key.
GenerationConfig config_from_hf(const nlohmann::json& json, const std::string& where,
                                std::vector<std::string>& ignored);

/// The model folder's generation_config.json, where it has none config.json as a whole; completed from config.json's
/// eos and bos and, unless `tokenizer` is null, by adopt_special_tokens. Of a GGUF file, its ends. Warns about what was
/// ignored.
GenerationConfig load_config(const std::filesystem::path& folder, const text::Tokenizer* tokenizer);

/// The tokenizer's eos and bos where the model's files say none.
void adopt_special_tokens(GenerationConfig& config, const text::Tokenizer& tokenizer);

}  // namespace llmtk::generate
