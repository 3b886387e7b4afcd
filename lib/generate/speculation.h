#pragma once
// Tokens that something cheap proposes, and that the model then reads in one pass: those that it would have chosen
// itself are taken, so that the text is the same, only faster (Leviathan et al., Fast Inference from Transformers via
// Speculative Decoding, 2023; Saxena, Prompt Lookup Decoding, 2023).

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "generate/generate.h"

namespace llmtk::generate {

/// What may follow the texts of a batch. Rows are those of the decoder, in its order.
class Proposer {
 public:
  virtual ~Proposer() = default;
  /// The prompts of new rows; each may be continued by `new_tokens`.
  virtual void start(const std::vector<const std::vector<text::TokenId>*>& prompts, int64_t new_tokens) = 0;
  /// Row i becomes what row rows[i] was.
  virtual void select(const std::vector<int64_t>& rows) = 0;
  /// At most most[i] tokens behind contexts[i], all that row i has seen.
  virtual std::vector<std::vector<text::TokenId>> propose(const std::vector<std::span<const text::TokenId>>& contexts,
                                                          const std::vector<int64_t>& most) = 0;
};

/// With a draft model what it would write, else what followed the last tokens where they stood before. `speculation`
/// must outlive the result.
std::unique_ptr<Proposer> make_proposer(const Speculation& speculation);

/// What followed the last tokens of `context` where they stood before: the longest match of at most `ngram` tokens, of
/// several the latest. At most `most` tokens; empty where nothing matches.
std::vector<text::TokenId> look_up(std::span<const text::TokenId> context, int64_t ngram, int64_t most);

}  // namespace llmtk::generate
