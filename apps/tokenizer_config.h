#pragma once
// The `tokenizer` section of all configs that train.

#include <memory>
#include <optional>
#include <string>

#include "config/config.h"
#include "data/tokenizer_training.h"
#include "models/config.h"
#include "text/tokenizer.h"

namespace llmtk {

struct TokenizerConfig {
  std::string name_or_path;
  std::optional<data::TokenizerTrainingConfig> train;

  template <class V>
  void fields(V& v) {
    v("name_or_path", name_or_path,
      "A tokenizer file, a folder that holds one, or a name in the local Hugging Face cache; empty: that of "
      "model.name_or_path. What is tokenized already needs none");
    v("train", train, "Learn one from the texts of data.train first");
  }
  void validate(config::Problems& problems) const {
    if (train && !name_or_path.empty())
      problems.add("train", {.what = "given together with tokenizer.name_or_path", .expected = "one of the two"});
  }
  bool given() const { return train || !name_or_path.empty(); }
};

/// Where the section names none: the tokenizer beside the model's weights, if there is one.
void complete(TokenizerConfig& tokenizer, const models::ModelConfig& model);

/// Of a fine-tuning run: loaded, or learnt from the rows; null where none is named.
std::unique_ptr<text::Tokenizer> open_tokenizer(const TokenizerConfig& config, const data::FinetuneDataConfig& data,
                                                data::Objective objective);

}  // namespace llmtk
