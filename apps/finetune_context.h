#pragma once
// What `finetune` and `data` share: how a model's shape bounds the rows that it is trained on.

#include <memory>
#include <string>

#include "data/finetuning.h"
#include "io/json.h"
#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk {

/// shape: the model, on the meta device perhaps. config: its config.json. classifies: it has learnt its classes
/// already, so that labels are its own; else the data says what they are. The loader's part is the caller's.
data::FinetuneContext finetune_context(data::Objective objective, const nn::Model& shape, const io::Json& config,
                                       bool classifies, const text::Tokenizer* tokenizer,
                                       const std::string& tokenizer_path);

}  // namespace llmtk
