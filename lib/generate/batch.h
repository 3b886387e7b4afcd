#pragma once
// What generate() runs: prompts whose rows go through the model together.

#include <memory>
#include <span>

#include "generate/decoder.h"
#include "generate/generate.h"
#include "generate/tasks.h"

namespace llmtk::generate {

/// What all batches of a call share.
struct Work {
  Decoder& decoder;
  const text::Tokenizer& tokenizer;
  const GenerationConfig& config;
  const GenerateOptions& options;
  Timings& timings;  ///< what batches count: proposed, accepted
};

/// The place of one completion; its prompt and sequence are set, the rest is the batch's to fill.
struct Slot {
  const Task* task;
  size_t row;  ///< within the call: what on_text is told
  Completion completion;
  bool done = false;
};

class Batch {
 public:
  virtual ~Batch() = default;
  /// The prompts through the model, and the first new tokens.
  virtual void start() = 0;
  /// One token more for all that are not done; false when none is left.
  virtual bool step() = 0;
};

/// Greedy and sampled rows, one per slot.
std::unique_ptr<Batch> make_row_batch(const Work& work, std::span<Slot> slots);
/// Beam search (beam_search.cpp); `slots` are all those of their prompts.
std::unique_ptr<Batch> make_beam_batch(const Work& work, std::span<Slot> slots);

}  // namespace llmtk::generate
