#pragma once
// What becomes of rows of answers (LabelKind::answers) before a loader draws them. Such a row holds one text or two
// side by side; position_ids restart with the second.

#include <memory>
#include <string>
#include <vector>

#include "data/rows.h"

namespace llmtk::data {

/// Where the texts of a row end: one or two places.
std::vector<size_t> text_ends(const Example& example);

/// Rated answers, one a row with its rating as value: 1 or 0. Of rows that hold pairs the chosen answers come first,
/// then the rejected ones in the same order (TRL's unpair_preference_dataset).
class RatedRows : public RowSource {
 public:
  explicit RatedRows(std::shared_ptr<const RowSource> rows);
  uint64_t rows() const override { return paired_ ? 2 * rows_->rows() : rows_->rows(); }
  uint64_t tokens() const override { return rows_->tokens(); }
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override { return rows_->place(row % rows_->rows(), offset); }
  std::string identity() const override { return rows_->identity() + " rated"; }

 private:
  std::shared_ptr<const RowSource> rows_;
  bool paired_;
};

/// Each rated answer, and beside it its prompt with the answer of the row before, which KTO estimates its KL on. Rows
/// are rotated within stretches of `stretch`, as TRL's KTOTrainer does: the first takes the last one's.
class MismatchedRows : public RowSource {
 public:
  /// max_length: texts that come to more lose their ends.
  MismatchedRows(std::shared_ptr<const RowSource> rows, uint64_t stretch, size_t max_length);
  uint64_t rows() const override { return rows_->rows(); }
  uint64_t tokens() const override;
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override { return rows_->place(row, offset); }
  std::string identity() const override { return rows_->identity() + " mismatched " + std::to_string(stretch_); }

 private:
  std::shared_ptr<const RowSource> rows_;
  uint64_t stretch_;
  size_t max_length_;
};

/// Rows with numbers that are known only once a model has read them. The numbers come behind the rows' own values; they
/// are no part of the identity.
class AnnotatedRows : public RowSource {
 public:
  explicit AnnotatedRows(std::shared_ptr<const RowSource> rows) : rows_(std::move(rows)) {}
  /// values: [rows, K], row-major. To be called before rows are drawn on another thread.
  void set(std::vector<float> values);
  uint64_t rows() const override { return rows_->rows(); }
  uint64_t tokens() const override { return rows_->tokens(); }
  uint64_t length(uint64_t row) const override { return rows_->length(row); }
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override { return rows_->place(row, offset); }
  std::string identity() const override { return rows_->identity(); }

 private:
  std::shared_ptr<const RowSource> rows_;
  std::vector<float> values_;
};

}  // namespace llmtk::data
