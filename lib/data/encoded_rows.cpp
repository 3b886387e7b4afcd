#include "data/encoded_rows.h"

#include <algorithm>
#include <deque>
#include <map>
#include <numeric>

#include "core/error.h"

namespace llmtk::data {

uint64_t EncodedRow::num_trained(LabelKind kind) const {
  if (kind == LabelKind::set) return 1;  // an empty set is asked, too
  if (kind == LabelKind::own)
    return labels.size() + values.size() - static_cast<uint64_t>(std::ranges::count(labels, kIgnore));
  uint64_t sum = 0, of_second = 0;  // nothing stands before a first token
  for (const auto [begin, end] : trained) {
    const bool behind = kind == LabelKind::answers && second > 0 && begin >= second;
    (behind ? of_second : sum) += end - std::min(std::max(begin, behind ? second + 1 : 1u), end);
  }
  // Half a pair teaches nothing.
  return kind == LabelKind::answers && second > 0 && (sum == 0 || of_second == 0) ? 0 : sum + of_second;
}

void EncodedRows::add(const EncodedRow& row) {
  ids_.add(row.ids);
  trained_.add(row.trained);
  labels_.add(row.labels);
  values_.add(row.values);
  places_.push_back(
      {row.line, row.file, row.second, row.cut, row.words_cut, row.answer_cut, row.doubled_bos, row.untrained_eos});
}

EncodedRow EncodedRows::notes(uint64_t row) const {
  const Place& place = places_[row];
  return {.second = place.second,
          .file = place.file,
          .line = place.line,
          .cut = place.cut,
          .words_cut = place.words_cut,
          .answer_cut = place.answer_cut,
          .doubled_bos = place.doubled_bos,
          .untrained_eos = place.untrained_eos};
}

void EncodedRows::map_labels(const std::vector<int32_t>& map) {
  for (int32_t& label : labels_.all)
    if (label != kIgnore) label = map.at(static_cast<size_t>(label));
}

void EncodedRows::read(uint64_t row, Example& out) const {
  LLMTK_CHECK(row < rows());
  out = {};
  const auto ids = ids_[row], labels = labels_[row];
  const auto values = values_[row];
  const size_t second = places_[row].second;
  out.input_ids.assign(ids.begin(), ids.end());
  out.values.assign(values.begin(), values.end());
  if (kind_ == LabelKind::own) {
    out.labels.assign(labels.begin(), labels.end());
  } else if (kind_ == LabelKind::set) {
    out.values.assign(classes_, 0.0f);
    for (const int32_t label : labels) out.values[static_cast<size_t>(label)] = 1.0f;
  } else {
    out.labels.assign(ids.size(), kIgnore);
    for (const auto [begin, end] : trained_[row])
      for (size_t t = std::max(begin, 1u); t < end; ++t)
        if (kind_ != LabelKind::answers || t != second) out.labels[t - 1] = ids[t];
  }
  if (kind_ == LabelKind::answers) {
    for (size_t t = 0; t < ids.size(); ++t)
      out.position_ids.push_back(static_cast<int32_t>(second > 0 && t >= second ? t - second : t));
  } else if (second > 0) {
    out.token_type_ids.assign(ids.size(), 0);
    std::fill(out.token_type_ids.begin() + static_cast<std::ptrdiff_t>(second), out.token_type_ids.end(), 1);
  }
}

std::string EncodedRows::place(uint64_t row, size_t offset) const {
  const Place& place = places_[row];
  return files_[place.file] + ":" + std::to_string(place.line) + ", token " + std::to_string(offset);
}

std::string EncodedRows::identity() const {
  Checksum sum;
  const auto add = [&](const auto& values) { sum.update(std::as_bytes(std::span(values))); };
  add(ids_.all);
  add(ids_.ends);
  add(trained_.all);
  add(trained_.ends);
  add(labels_.all);
  add(labels_.ends);
  add(values_.all);
  add(values_.ends);
  for (const Place& place : places_) sum.update(std::as_bytes(std::span(&place.second, 1)));
  return sum.hex();
}

// --- ChosenRows ---

ChosenRows::ChosenRows(std::shared_ptr<const RowSource> rows, std::vector<uint64_t> chosen)
    : rows_(std::move(rows)), chosen_(std::move(chosen)) {
  for (const uint64_t row : chosen_) tokens_ += rows_->length(row);
}

std::string ChosenRows::identity() const {
  Checksum sum;
  sum.update(std::as_bytes(std::span(chosen_)));
  return rows_->identity() + " rows " + sum.hex();
}

// --- PackedRows ---

std::vector<std::vector<uint64_t>> best_fit_decreasing(const std::vector<uint64_t>& sizes, uint64_t capacity) {
  std::vector<uint64_t> order(sizes.size());
  std::iota(order.begin(), order.end(), uint64_t{0});
  std::ranges::stable_sort(order, std::greater{}, [&](uint64_t i) { return sizes[i]; });
  std::vector<std::vector<uint64_t>> bins;
  std::map<uint64_t, std::deque<size_t>> by_room;  // the bins that have so much room left
  for (const uint64_t i : order) {
    LLMTK_CHECK(sizes[i] <= capacity);
    uint64_t room = capacity;
    size_t bin = bins.size();
    if (const auto best = by_room.lower_bound(sizes[i]); best != by_room.end()) {
      room = best->first;
      bin = best->second.front();
      best->second.pop_front();
      if (best->second.empty()) by_room.erase(best);
    } else {
      bins.emplace_back();
    }
    bins[bin].push_back(i);
    if (room > sizes[i]) by_room[room - sizes[i]].push_back(bin);
  }
  return bins;
}

PackedRows::PackedRows(std::shared_ptr<const RowSource> rows, uint64_t length)
    : rows_(std::move(rows)), length_(length) {
  std::vector<uint64_t> sizes(rows_->rows());
  for (uint64_t row = 0; row < sizes.size(); ++row) sizes[row] = rows_->length(row);
  bins_ = best_fit_decreasing(sizes, length_);
}

uint64_t PackedRows::length(uint64_t row) const {
  uint64_t sum = 0;
  for (const uint64_t part : bins_[row]) sum += rows_->length(part);
  return sum;
}

void PackedRows::read(uint64_t row, Example& out) const {
  out = {};
  Example part;
  for (const uint64_t each : bins_[row]) {
    rows_->read(each, part);
    out.input_ids.insert(out.input_ids.end(), part.input_ids.begin(), part.input_ids.end());
    out.labels.insert(out.labels.end(), part.labels.begin(), part.labels.end());
    for (size_t t = 0; t < part.input_ids.size(); ++t) out.position_ids.push_back(static_cast<int32_t>(t));
  }
}

std::string PackedRows::place(uint64_t row, size_t offset) const {
  for (const uint64_t part : bins_[row]) {
    const uint64_t size = rows_->length(part);
    if (offset < size) return rows_->place(part, offset);
    offset -= size;
  }
  return rows_->place(bins_[row].back(), offset);
}

}  // namespace llmtk::data
