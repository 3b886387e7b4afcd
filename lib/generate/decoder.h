#pragma once
// What the decode loops see of a model, decoder or encoder-decoder: rows that grow by a token at a time.

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "generate/generate.h"
#include "nn/seq2seq_model.h"

namespace llmtk::generate {

class Decoder {
 public:
  virtual ~Decoder() = default;

  /// Reads the prompts, one row each; of what was before nothing stays. At most `new_tokens` more calls of step() may
  /// follow. Returns the logits of the next token, float32: [B, V].
  virtual at::Tensor start(const std::vector<const std::vector<text::TokenId>*>& prompts, int64_t new_tokens) = 0;
  /// Adds `tokens` tokens to each row; ids: row by row. Returns the logits behind each, float32: [B, tokens, V]. They
  /// may be written to; the next step overwrites them.
  virtual at::Tensor step(const std::vector<text::TokenId>& ids, int64_t tokens) = 0;
  at::Tensor step(const std::vector<text::TokenId>& ids) { return step(ids, 1).squeeze(1); }  ///< [B, V]
  /// Row i forgets all but its first lengths[i] tokens.
  virtual void truncate(const std::vector<int64_t>& lengths) = 0;
  /// Row i becomes what row rows[i] was; there may be more or fewer of them than before.
  virtual void select(const std::vector<int64_t>& rows) = 0;
};

/// What the decoder of an encoder-decoder begins with: the config's token, else the model's own.
text::TokenId start_token(const nn::Seq2SeqModel& model, const GenerationConfig& config);

/// `model` and `options`, whose prefix and on_prefill are used, must outlive the result. Throws Error(usage) for models
/// that do not write.
std::unique_ptr<Decoder> make_decoder(nn::Model& model, const GenerationConfig& config, const GenerateOptions& options);

}  // namespace llmtk::generate
