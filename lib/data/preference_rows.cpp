#include "data/preference_rows.h"

#include <algorithm>

#include "core/error.h"

namespace llmtk::data {
namespace {

/// Leaves of a row its text [begin, end).
void keep_text(Example& example, size_t begin, size_t end) {
  const auto keep = [&](std::vector<int32_t>& of_tokens) {
    of_tokens.erase(of_tokens.begin() + static_cast<std::ptrdiff_t>(end), of_tokens.end());
    of_tokens.erase(of_tokens.begin(), of_tokens.begin() + static_cast<std::ptrdiff_t>(begin));
  };
  keep(example.input_ids);
  keep(example.labels);
  keep(example.position_ids);
}

/// The first token of the answer: a label asks for it one before.
size_t answer_begin(const Example& example) {
  const auto asked = std::ranges::find_if(example.labels, [](int32_t label) { return label != kIgnore; });
  LLMTK_CHECK(asked != example.labels.end(), "a row without an answer");
  return static_cast<size_t>(asked - example.labels.begin()) + 1;
}

}  // namespace

std::vector<size_t> text_ends(const Example& example) {
  std::vector<size_t> ends;
  for (size_t t = 1; t < example.position_ids.size(); ++t)
    if (example.position_ids[t] == 0) ends.push_back(t);
  ends.push_back(example.input_ids.size());
  return ends;
}

RatedRows::RatedRows(std::shared_ptr<const RowSource> rows) : rows_(std::move(rows)) {
  Example first;
  rows_->read(0, first);
  paired_ = text_ends(first).size() == 2;
}

void RatedRows::read(uint64_t row, Example& out) const {
  rows_->read(row % rows_->rows(), out);
  if (!paired_) return;
  const bool chosen = row < rows_->rows();
  const size_t second = text_ends(out)[0];
  chosen ? keep_text(out, 0, second) : keep_text(out, second, out.input_ids.size());
  out.values = {chosen ? 1.0f : 0.0f};
}

MismatchedRows::MismatchedRows(std::shared_ptr<const RowSource> rows, uint64_t stretch, size_t max_length)
    : rows_(std::move(rows)), stretch_(stretch), max_length_(max_length) {
  LLMTK_CHECK(stretch >= 1);
}

uint64_t MismatchedRows::tokens() const {
  uint64_t sum = 0;
  for (uint64_t row = 0; row < rows(); ++row) sum += length(row);
  return sum;
}

void MismatchedRows::read(uint64_t row, Example& out) const {
  const uint64_t begin = row / stretch_ * stretch_, end = std::min(begin + stretch_, rows_->rows());
  Example other;
  rows_->read(row == begin ? end - 1 : row - 1, other);
  rows_->read(row, out);
  const size_t prompt = answer_begin(out), answer = answer_begin(other);
  const size_t length = std::min(prompt + other.input_ids.size() - answer, max_length_);
  for (size_t t = 0; t < length; ++t) {
    const bool own = t < prompt;
    const size_t from = t - prompt + answer;  // in the other row
    out.input_ids.push_back(own ? out.input_ids[t] : other.input_ids[from]);
    // The last token of the prompt asks for the first of the answer.
    const bool asks = t + 1 >= prompt && t + 1 < length;
    out.labels.push_back(asks ? other.labels[from] : kIgnore);
    out.position_ids.push_back(static_cast<int32_t>(t));
  }
}

void AnnotatedRows::set(std::vector<float> values) {
  LLMTK_CHECK(rows() > 0 && values.size() % rows() == 0, values.size(), " values for ", rows(), " rows");
  values_ = std::move(values);
}

void AnnotatedRows::read(uint64_t row, Example& out) const {
  rows_->read(row, out);
  const auto count = static_cast<std::ptrdiff_t>(values_.size() / rows());
  const auto begin = values_.begin() + static_cast<std::ptrdiff_t>(row) * count;
  out.values.insert(out.values.end(), begin, begin + count);
}

}  // namespace llmtk::data
