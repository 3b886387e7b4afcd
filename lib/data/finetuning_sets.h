#pragma once
// From the rows of opened sources to the two sets of a run: what is held out, what is told of each, their loaders.

#include <memory>
#include <string>
#include <vector>

#include "data/encoded_rows.h"
#include "data/finetuning.h"

namespace llmtk::data {

/// What the rows of one source are before they are split into sets.
struct OpenSource {
  const FinetuneSourceConfig* config;
  std::string format;
  std::shared_ptr<RowSource> rows;
  std::shared_ptr<EncodedRows> encoded;  ///< null where the rows were tokenized already
  FinetuneStatistics read;               ///< what was skipped, dropped and untrained
  std::string first_untrained;           ///< where that row stands
};

/// Fills all of `out` but max_length, label_names and problem_type, which must be there. Warns of what is cut, dropped
/// or odd. Throws Error(data) for a source without a row to use.
void make_sets(const FinetuneDataConfig& config, const FinetuneContext& context, std::vector<OpenSource>& train,
               std::vector<OpenSource>& validation, FinetuningData& out);

}  // namespace llmtk::data
