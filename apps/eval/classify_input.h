#pragma once
// What `llmtk eval classify` reads: rows and their labels, as an encoder takes them.

#include <optional>
#include <string>
#include <vector>

#include "data/labels.h"
#include "eval/options.h"
#include "eval/rows.h"
#include "open_encoder.h"

namespace llmtk {

using Task = data::ClassificationTask;

struct ClassifyOptions {
  EvalOptions eval;
  std::string file, problem_type;
  std::string text_field, label_field;  ///< empty: as the task has it
  std::optional<std::string> pair_field;
  std::optional<double> threshold;  ///< of Task::multi_label
  bool truncate = false;
};

/// The model's task: --problem-type, else config.json's problem_type, else what its head and number of labels say. Puts
/// the task's fields where `options` names none. Throws Error(usage) for a model without a classification head, and for
/// flags that have no effect on the task.
Task task_of(const OpenModel& open, ClassifyOptions& options);

struct Example {
  text::Encoding encoding;
  /// The class; a list of classes in rising order; a number, or a list of them; a class for each word.
  Json label;
  /// Task::tokens: the place of each word's first token in the encoding; -1 for a word without tokens, or cut away.
  std::vector<int64_t> places;
};
/// Throws Error(data) that names the row. Warns of what was cut.
std::vector<Example> read_examples(Task task, const OpenModel& open, const ClassifyOptions& options,
                                   const std::vector<std::string>& names);

}  // namespace llmtk
