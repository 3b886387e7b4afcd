#pragma once
// `llmtk data`: rows and what was found of them, for people and as JSON.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/finetuning.h"

namespace llmtk {

/// How a row is shown.
struct ShowOptions {
  data::Objective objective = data::Objective::causal_lm;
  bool color = false;  ///< what is trained on in colour; else between ⟦ and ⟧
  bool ids = false;    ///< each token by itself with its id
};

/// One row as text: where it stands, its tokens, and what is asked of the model.
std::string show_row(const data::RowSource& rows, uint64_t row, const std::vector<std::string>& labels,
                     const text::Tokenizer& tokenizer, const ShowOptions& options);
/// {"where", "tokens", "trained", "text", "ids", "labels" or "values", "position_ids", "token_type_ids"}.
nlohmann::ordered_json json_of_row(const data::RowSource& rows, uint64_t row, const text::Tokenizer& tokenizer);

/// Of a set: the statistics, shares, quantiles of lengths, how full packed rows are, how often each label comes.
nlohmann::ordered_json describe_rows(const data::RowSource& rows, const data::FinetuneStatistics& found,
                                     const data::FinetuningData& data, bool packed);
/// The same as lines of text.
std::string show_description(const std::string& name, const nlohmann::ordered_json& described);

}  // namespace llmtk
