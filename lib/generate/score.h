#pragma once
// Log-probabilities of given tokens: what evaluation is made of.

#include <span>
#include <vector>

#include "nn/causal_model.h"
#include "nn/seq2seq_model.h"
#include "text/tokenizer.h"

namespace llmtk::generate {

/// Tokens to score after tokens that are only read.
struct Scored {
  std::vector<text::TokenId> context;
  std::vector<text::TokenId> targets;
};

/// Natural logarithm of the probability of each target given the context and the targets before it: result[i][t] of
/// rows[i].targets[t]. A context is at least one token. Rows of like length run together, `batch_size` at a time; the
/// result does not depend on the neighbours. Logits exist for the targets alone, chunk by chunk. The model is used as
/// it is (set it to eval() first), without gradients. Throws Error(usage) for a row longer than the model can see and
/// Error(diverged) for logits that are not finite.
std::vector<std::vector<float>> score(nn::CausalModel& model, std::span<const Scored> rows, int64_t batch_size);
/// The same of the decoder's tokens, where the encoder reads the context and the decoder begins with `start`: see
/// start_token().
std::vector<std::vector<float>> score(nn::Seq2SeqModel& model, std::span<const Scored> rows, int64_t batch_size,
                                      text::TokenId start);

/// What follows a prompt in a text. whole: the tokens of prompt and continuation as one text; prompt: those of the
/// prompt alone. A token that covers the end of the prompt and the beginning of the continuation is the continuation's.
/// The context may come out empty.
Scored after_prompt(std::span<const text::TokenId> prompt, std::span<const text::TokenId> whole);

/// A piece of a long text, in tokens: [begin, end) is read, [first, end) is scored.
struct Window {
  size_t begin, first, end;
};
/// Windows of at most `length` tokens that begin `stride` apart (1 <= stride <= length, length >= 2). Each scores what
/// no earlier one has, save for a token that nothing stands before in its window: the text's first, and with stride ==
/// length each window's. As in Hugging Face's guide to the perplexity of fixed-length models.
std::vector<Window> windows(size_t tokens, size_t length, size_t stride);

}  // namespace llmtk::generate
