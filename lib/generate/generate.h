#pragma once
// The decode loop: prompts in, continuations out.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "generate/config.h"
#include "nn/kv_cache.h"
#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk::nn {
class CausalModel;
}

namespace llmtk::generate {

enum class FinishReason { eos, stop_string, length };
/// "eos", "stop_string", "length".
const char* to_string(FinishReason reason);

struct Completion {
  size_t prompt = 0;               ///< index of its prompt
  int64_t sequence = 0;            ///< which of num_return_sequences
  std::vector<text::TokenId> ids;  ///< new tokens only; the eos or what completed a stop string is the last one
  std::vector<float> logprobs;  ///< per id, natural logarithm, of the model's own distribution: before the repetition
                                ///< penalty, the temperature and every filter. Empty unless asked for.
  /// Of a beam: the sum of the log-probabilities after all penalties, divided by the length to the length_penalty
  /// (transformers' sequences_scores).
  std::optional<float> score;
  std::string text;  ///< decoded ids without special tokens, ending before the stop string
  FinishReason finish_reason = FinishReason::length;
  std::string stop_string;  ///< the one that was found
};

/// Where the time of one generate() call went, in seconds; summed over its batches.
struct Timings {
  double first_token = 0;          ///< from the call to the first token of the first batch
  double prefill = 0;              ///< reading the prompts, first tokens included
  double decode = 0;               ///< all later tokens
  int64_t prompt_tokens = 0;       ///< that the model read: a prompt's once for all of its sequences in a batch
  int64_t prefill_new_tokens = 0;  ///< tokens that the prefills gave: one per row
  int64_t decode_new_tokens = 0;
  int64_t proposed = 0, accepted = 0;  ///< tokens, with speculation
};

/// What a decoder has read, kept for a text that begins alike: the next turn of a chat. Empty at first.
struct Prefix {
  std::vector<text::TokenId> ids;
  std::unique_ptr<nn::KVCache> cache;
  size_t reused = 0;  ///< of the last prompt: ids at its beginning that were not read again
};

/// Tokens of each prompt that a decoder reads at a time. What a long prompt needs while it is read is bounded by that.
inline constexpr int64_t kPrefillTokens = 512;

/// How tokens are proposed that the model only has to confirm (speculation.h).
struct Speculation {
  nn::CausalModel* draft =
      nullptr;         ///< proposes what it would write; its vocabulary is the model's. Null: looked up in the text
  int64_t ngram = 3;   ///< looked up: as many of the last tokens as are compared at most
  int64_t tokens = 5;  ///< proposed at a time, at most; fewer after proposals that were not taken
};

struct GenerateOptions {
  /// Rows that run together: prompts x num_return_sequences, or prompts x num_beams (at least one prompt's beams).
  int64_t batch_size = 8;
  size_t first_prompt =
      0;  ///< index of prompts[0] in the whole work: random streams and Completion::prompt count from it
  std::vector<std::string> places;  ///< what errors call each prompt (file:line); empty: "prompt 1", "prompt 2", ...
  bool logprobs = false;
  nn::CacheType cache_type = nn::CacheType::plain;  ///< of a decoder's keys and values
  Prefix* prefix = nullptr;  ///< with one prompt and one sequence, without beams: what is there is not read again
  /// Of a decoder without beams. The text is what it would be without.
  std::optional<Speculation> speculation;
  /// Called between the pieces of kPrefillTokens in which a decoder reads long prompts; what it throws ends the call.
  std::function<void()> on_prefill;
  /// Called with every piece of text as it becomes certain, whole characters only: (row within the call, piece). A
  /// row is one of a prompt's num_return_sequences. Of beams nothing is certain until the end: each text comes whole.
  std::function<void(size_t, std::string_view)> on_text;
  /// Called with each completion in order, as soon as it and those before it are done.
  std::function<void(const Completion&)> on_completion;
  Timings* timings = nullptr;
};

/// Continues every prompt (ids; an empty one starts from bos_token_id) `config.num_return_sequences` times. The result
/// is in order: all sequences of the first prompt, then of the second; of beams the best first. A decoder's prompts are
/// what it goes on with; an encoder-decoder's are what its encoder reads. Those of one batch are padded and masked, so
/// a prompt's continuation does not depend on its neighbours.
///
/// The model is used as it is (set it to eval() first) and without gradients. A continuation that reaches the model's
/// max_positions() ends with FinishReason::length. Throws Error(data) for a prompt that leaves no room in the model or
/// in max_length, or holds an id that the model does not know; Error(usage) for a config out of range or a model that
/// does not write, or for speculation with beams or another model than a decoder; Error(diverged) when the logits are
/// not finite.
std::vector<Completion> generate(nn::Model& model, const text::Tokenizer& tokenizer,
                                 std::span<const std::vector<text::TokenId>> prompts, const GenerationConfig& config,
                                 const GenerateOptions& options = {});

/// Throws what sample_texts would throw for these prompts (too long, nothing to begin with, ids that the model does not
/// know). The model's parameters are not looked at: they may be on the meta device.
void check_prompts(const nn::Model& model, const text::Tokenizer& tokenizer, const std::vector<std::string>& prompts,
                   const GenerationConfig& config);

/// Prompt and continuation as text (of an encoder-decoder the continuation alone), once per prompt and sequence: what a
/// training run shows of itself. Puts the model into eval mode for the call and back.
std::vector<std::string> sample_texts(nn::Model& model, const text::Tokenizer& tokenizer,
                                      const std::vector<std::string>& prompts, const GenerationConfig& config,
                                      const GenerateOptions& options = {});

}  // namespace llmtk::generate
