#pragma once
// The labels of a fine-tuning run's rows: what they are, found out row by row. For data/finetuning.cpp.

#include <optional>
#include <string>
#include <vector>

#include "data/finetuning.h"
#include "data/labels.h"
#include "data/row_encoder.h"

namespace llmtk::data {

/// Of objectives without classes every method does nothing.
class RowLabels {
 public:
  /// Refers to both.
  RowLabels(const FinetuneDataConfig& config, const FinetuneContext& context) : config_(config), context_(context) {}

  /// A source's first row; that of the first source says what labels are where neither config nor model do.
  void see_first(const Fields& row, bool of_table);
  LabelKind kind() const;
  /// Puts the draft's labels into its row; they are numbers of a ClassCollector until finish(), then classes. Throws
  /// Error(data) naming `where`.
  void assign(Draft& draft, const std::string& where);
  /// After the training rows: class of each number so far, where the data says the classes. Throws Error(data) naming
  /// `where` for a single class.
  std::optional<std::vector<int32_t>> finish(const std::string& where);

  const std::vector<std::string>& names() const;  ///< after finish()
  ClassificationTask task() const { return task_.value(); }

 private:
  void start(const std::string& key);
  int32_t class_of(const nlohmann::ordered_json& label, const std::string& where);

  const FinetuneDataConfig& config_;
  const FinetuneContext& context_;
  std::optional<ClassificationTask> task_;
  std::optional<ClassCollector> collector_;  // until finish(), where the data says the classes
  std::optional<Classes> classes_;
};

}  // namespace llmtk::data
