#pragma once
// From logits to a token: the chain of processors and warpers that a config asks for, in transformers' order.

#include <cstdint>
#include <span>
#include <vector>

#include "generate/logits.h"

namespace llmtk::generate {

/// Where a row stands when its next token is chosen.
struct Position {
  std::span<const TokenId> context;  ///< what the decoder has seen, without padding
  int64_t new_tokens = 0;            ///< the last so many of it were written
  int64_t limit = 0;                 ///< so many may be written
};

/// Stateless between calls apart from buffers: one object serves one thread.
class Chooser {
 public:
  /// `config` must outlive this object.
  explicit Chooser(const GenerationConfig& config);

  /// True when no processor changes the logits.
  bool plain() const { return plain_; }
  /// True when the caller may take the argmax where the logits are: nothing changes them, and nothing is drawn.
  bool plain_greedy() const { return plain_ && !config_.do_sample; }

  /// The processors alone, in place: what beam search applies to log-probabilities.
  void penalize(std::span<float> logits, const Position& position) const;
  /// The warpers, which do_sample asks for, over scores that penalize() has left; the rest is in candidates().
  void warp(std::span<const float> scores);
  /// Both, where warpers are asked for.
  void process(std::span<float> logits, const Position& position);
  const Candidates& candidates() const { return candidates_; }
  /// The next token of row `row` after process(): the best candidate, or one drawn from the stream (seed, row).
  TokenId choose(uint64_t row, int64_t new_tokens) const;

 private:
  const GenerationConfig& config_;
  std::vector<SequenceBias> bad_words_;  // a bias of minus infinity
  bool plain_;
  Candidates candidates_;
};

}  // namespace llmtk::generate
