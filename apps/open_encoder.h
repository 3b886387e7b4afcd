#pragma once
// What `embed`, `generate --fill-mask` and `eval classify` share: an encoder with its tokenizer, and batches of ids.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "nn/encoder_model.h"
#include "open_model.h"

namespace llmtk {

struct OpenEncoder {
  std::filesystem::path folder;
  std::shared_ptr<nn::EncoderModel> model;  ///< in eval mode, without gradients
  std::unique_ptr<text::Tokenizer> tokenizer;
};

/// Sets the process up for computing, then reads weights (of `weights`, the folder itself or one below it) and
/// tokenizer. head: nullopt for the one that the folder has. Throws Error(file, usage).
OpenEncoder open_encoder(const ModelOptions& options, const std::filesystem::path& weights,
                         std::optional<nn::Head> head);

/// Throws Error(data) naming `where` for an id that the model does not know.
void check_ids(const nn::Model& model, const std::vector<text::TokenId>& ids, const std::string& where);

/// Rows of ids beside each other, padded on the right.
struct EncoderBatch {
  at::Tensor input_ids;       ///< [B, T] int64
  at::Tensor attention_mask;  ///< [B, T] bool
};
EncoderBatch encoder_batch(std::span<const std::vector<text::TokenId>* const> rows, const nn::Model& model,
                           const text::Tokenizer& tokenizer);

}  // namespace llmtk
