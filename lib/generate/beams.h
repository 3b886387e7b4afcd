#pragma once
// Beam search over the continuations of one prompt: transformers' rules of what runs on, what is finished and when it
// is over. What the model computes is elsewhere (beam_search.cpp).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "generate/config.h"
#include "generate/generate.h"
#include "generate/tasks.h"
#include "generate/text_stream.h"

namespace llmtk::generate {

/// Token `id` after running beam `beam`.
struct Continuation {
  int64_t beam;
  text::TokenId id;
  float score;    ///< sum of the log-probabilities after all penalties, from the first new token on
  float logprob;  ///< of this token, as the model itself gave it
};

/// How many continuations a step has to offer, so that num_beams of them go on whatever has ended.
int64_t continuations_needed(const GenerationConfig& config);

class Beams {
 public:
  /// The arguments must outlive this object.
  Beams(const Task& task, const GenerationConfig& config, const text::Tokenizer& tokenizer);

  const Task& task() const { return *task_; }
  /// One more token for every running beam. continuations: continuations_needed() of them, the best first (or in the
  /// order in which they were drawn); at least num_beams.
  void advance(const std::vector<Continuation>& continuations);
  /// Nothing can change the result any more.
  bool done() const { return done_; }

  /// num_beams of them. The first step sees num_beams equal ones, of which all but the first have a score that takes
  /// them out of the race.
  size_t size() const { return running_.size(); }
  float score(size_t beam) const { return running_[beam].score; }
  int64_t parent(size_t beam) const { return running_[beam].parent; }  ///< which running beam it was before this step
  /// Prompt and new tokens.
  const std::vector<text::TokenId>& context(size_t beam) const { return running_[beam].context; }
  int64_t new_tokens() const { return new_tokens_; }

  /// Fills ids, logprobs, text, score and finish_reason of the `rank`-th best finished beam.
  void fill(Completion& completion, size_t rank) const;

 private:
  struct Beam {
    std::vector<text::TokenId> context;
    std::vector<float> logprobs;
    float score = 0;  // of a running beam the sum; of a finished one divided by its length to the length_penalty
    int64_t parent = 0;
    bool finished = false;
    std::optional<TextStream> text;  // kept only when there are stop strings
  };
  Beam extended(const Continuation& continuation) const;
  bool ends(const Beam& beam) const;
  void keep_running(const std::vector<Beam>& offered, const std::vector<bool>& ended);
  void keep_finished(const std::vector<Beam>& offered, const std::vector<bool>& ended);
  bool may_improve() const;
  bool all_finished() const;

  const Task* task_;
  const GenerationConfig* config_;
  const text::Tokenizer* tokenizer_;
  std::vector<Beam> running_, finished_;
  int64_t new_tokens_ = 0;
  bool may_improve_ = true;
  bool done_ = false;
};

}  // namespace llmtk::generate
