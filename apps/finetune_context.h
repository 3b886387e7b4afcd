#pragma once
// What `finetune` and `data` share: how a model's shape bounds the rows that it is trained on.

#include <memory>
#include <string>

#include "data/finetuning.h"
#include "io/json.h"
#include "nn/model.h"
#include "text/tokenizer.h"

namespace llmtk {

/// What a config's `objective` means for a model, on the meta device perhaps. Throws Error(usage) naming `where` for a
/// model of another kind, or one whose head does not say what `auto` is.
data::Objective choose_objective(const std::string& objective, const nn::Model& shape, const std::string& where);

bool is_classification(data::Objective objective);
/// The head that an objective trains.
nn::Head head_of(data::Objective objective);

/// shape: the model, on the meta device perhaps. config: its config.json. classifies: it has learnt its classes
/// already, so that labels are its own; else the data says what they are. The loader's part is the caller's.
data::FinetuneContext finetune_context(data::Objective objective, const nn::Model& shape, const io::Json& config,
                                       bool classifies, const text::Tokenizer* tokenizer,
                                       const std::string& tokenizer_path);

}  // namespace llmtk
