#pragma once
// Tokenized rows in memory: ids, and which of them are trained on.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/rows.h"

namespace llmtk::data {

/// Tokens [begin, end) of a row.
struct TokenSpan {
  uint32_t begin = 0, end = 0;
  bool operator==(const TokenSpan&) const = default;
};

enum class LabelKind {
  next,     ///< a decoder's: the ids in `trained`, each asked at the place before it
  own,      ///< EncodedRow::labels and values, as Example has them
  set,      ///< classes that hold: values of 1 for the ones in EncodedRow::labels, else 0
  answers,  ///< as next, of a text or of two side by side (from `second` on), which do not see each other; the values
            ///< are EncodedRow's
};

/// A row before it is stored.
struct EncodedRow {
  std::vector<int32_t> ids;
  std::vector<TokenSpan> trained;  ///< LabelKind::next: what is trained on, in order, apart from each other
  std::vector<int32_t> labels;     ///< the other kinds
  std::vector<float> values;
  uint32_t second = 0;  ///< where the second text of a pair begins (token type 1, or LabelKind::answers'); 0: none
  uint32_t file = 0;
  uint64_t line = 0;
  uint32_t cut = 0;            ///< tokens that it lost
  uint32_t words_cut = 0;      ///< words without a token, or cut away
  bool answer_cut = false;     ///< it lost tokens that were to be trained on
  bool doubled_bos = false;    ///< it begins with two of them
  bool untrained_eos = false;  ///< no end of text is trained

  /// Labels that are asked, as EncodedRows::read gives them.
  uint64_t num_trained(LabelKind kind) const;
};

class EncodedRows : public RowSource {
 public:
  EncodedRows(LabelKind kind, std::vector<std::string> files) : kind_(kind), files_(std::move(files)) {}
  void add(const EncodedRow& row);
  /// Each label becomes map[label]; kIgnore stays.
  void map_labels(const std::vector<int32_t>& map);
  /// LabelKind::set: of so many classes.
  void set_classes(size_t classes) { classes_ = classes; }
  /// A row as it was added, without its ids and labels.
  EncodedRow notes(uint64_t row) const;

  uint64_t rows() const override { return places_.size(); }
  uint64_t tokens() const override { return ids_.size(); }
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override;
  std::string identity() const override;
  uint64_t length(uint64_t row) const override { return ids_.end_of(row) - ids_.begin_of(row); }

 private:
  /// Rows of different lengths, one behind the other.
  template <class T>
  struct Ragged {
    std::vector<T> all;
    std::vector<uint64_t> ends;
    void add(const std::vector<T>& row) {
      all.insert(all.end(), row.begin(), row.end());
      ends.push_back(all.size());
    }
    uint64_t begin_of(uint64_t row) const { return row == 0 ? 0 : ends[row - 1]; }
    uint64_t end_of(uint64_t row) const { return ends[row]; }
    std::span<const T> operator[](uint64_t row) const {
      return std::span(all).subspan(begin_of(row), end_of(row) - begin_of(row));
    }
    size_t size() const { return all.size(); }
  };
  struct Place {
    uint64_t line;
    uint32_t file, second, cut, words_cut;
    bool answer_cut, doubled_bos, untrained_eos;
  };

  LabelKind kind_;
  std::vector<std::string> files_;
  Ragged<int32_t> ids_, labels_;
  Ragged<TokenSpan> trained_;
  Ragged<float> values_;
  std::vector<Place> places_;
  size_t classes_ = 0;
};

/// Some rows of another source, in an order of their own.
class ChosenRows : public RowSource {
 public:
  ChosenRows(std::shared_ptr<const RowSource> rows, std::vector<uint64_t> chosen);
  uint64_t rows() const override { return chosen_.size(); }
  uint64_t tokens() const override { return tokens_; }
  void read(uint64_t row, Example& out) const override { rows_->read(chosen_[row], out); }
  std::string place(uint64_t row, size_t offset) const override { return rows_->place(chosen_[row], offset); }
  std::string identity() const override;
  uint64_t length(uint64_t row) const override { return rows_->length(chosen_[row]); }

 private:
  std::shared_ptr<const RowSource> rows_;
  std::vector<uint64_t> chosen_;
  uint64_t tokens_ = 0;
};

/// Rows of another source packed into longer ones, as best_fit_decreasing() puts them together. Positions restart with
/// each, so that a decoder keeps them apart.
class PackedRows : public RowSource {
 public:
  PackedRows(std::shared_ptr<const RowSource> rows, uint64_t length);
  uint64_t rows() const override { return bins_.size(); }
  uint64_t tokens() const override { return rows_->tokens(); }
  void read(uint64_t row, Example& out) const override;
  std::string place(uint64_t row, size_t offset) const override;
  std::string identity() const override { return rows_->identity() + " packed " + std::to_string(length_); }
  uint64_t length(uint64_t row) const override;
  /// The rows in a packed one.
  const std::vector<uint64_t>& bin(uint64_t row) const { return bins_[row]; }

 private:
  std::shared_ptr<const RowSource> rows_;
  uint64_t length_;
  std::vector<std::vector<uint64_t>> bins_;
};

/// Puts things of these sizes into bins of `capacity`: the largest first, of equal ones the earlier, each into the
/// fullest bin that has room for it, of equally full ones that which was so first (trl's pack_dataset with "bfd").
/// Nothing may be larger than `capacity`.
std::vector<std::vector<uint64_t>> best_fit_decreasing(const std::vector<uint64_t>& sizes, uint64_t capacity);

}  // namespace llmtk::data
