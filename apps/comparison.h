#pragma once
// What a change of a model's weights cost (a merge, quantization): how far what it says is from what it said.

#include <string>
#include <vector>

#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk {

using TokenRows = std::vector<std::vector<text::TokenId>>;

struct Comparison {
  int64_t tokens = 0;                    ///< that were compared
  double largest_logit_difference = 0;   ///< absolute
  double largest_logit = 0;              ///< absolute, of the model before
  double mean_kl = 0;                    ///< of the distribution before to the one after, nats per position
  double nll_before = 0, nll_after = 0;  ///< summed over `scored` tokens
  int64_t scored = 0;                    ///< tokens that follow others, of decoders; else 0

  double perplexity(double nll) const;
};

/// Compares models of one shape on rows of tokens.
Comparison compare(nn::Model& before, nn::Model& after, const TokenRows& rows);
/// -log p of a decoder for all tokens of the rows but their first ones.
double negative_log_likelihood(nn::Model& model, const TokenRows& rows);

/// A text's first `max_tokens` tokens in rows of at most `longest`. Throws Error(data) naming `where`.
TokenRows text_rows(const text::Tokenizer& tokenizer, const std::string& text, const std::string& where,
                    int64_t max_tokens, int64_t longest);
/// Where there is no text: 256 tokens at random, always the same.
TokenRows random_rows(int64_t vocab_size, int64_t longest);

}  // namespace llmtk
