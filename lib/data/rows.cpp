#include "data/rows.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "data/batch.h"
#include "data/files.h"

namespace llmtk::data {
namespace {

using nlohmann::json;

constexpr uint64_t kStretches = 16;       // of a corpus, each with a held-out end
constexpr uint64_t kRowsHeldOutEach = 4;  // fewer stretches rather than shorter ends

/// Index of the part that holds `at`, given the parts' starts (parts + 1).
size_t find_part(const std::vector<uint64_t>& starts, uint64_t at) {
  return static_cast<size_t>(std::upper_bound(starts.begin(), starts.end() - 1, at) - starts.begin()) - 1;
}

bool is_empty_row(std::string_view line) { return line.find_first_not_of(" \t\r\xEF\xBB\xBF") == line.npos; }

}  // namespace

// --- StreamRows ---

StreamRows::StreamRows(std::shared_ptr<const TokenShards> shards, std::vector<TokenRange> ranges, StreamOptions options,
                       bool keep_tail)
    : shards_(std::move(shards)), options_(std::move(options)), length_(static_cast<uint64_t>(options_.length)) {
  LLMTK_CHECK(options_.length >= 1 && !(options_.next_as_label && (options_.before.size() + options_.after.size())));
  for (const auto& range : ranges) {
    if (range.begin >= range.end) continue;
    ranges_.push_back(range);
    starts_.push_back(starts_.back() + range.end - range.begin);
  }
  const uint64_t last = options_.next_as_label ? 1 : 0;  // a label alone
  const uint64_t places = starts_.back() > last ? starts_.back() - last : 0;
  rows_ = (places + (keep_tail ? length_ - 1 : 0)) / length_;
}

void StreamRows::read(uint64_t row, Example& out) const {
  LLMTK_CHECK(row < rows_);
  const uint64_t begin = row * length_;
  const uint64_t more = options_.next_as_label ? 1 : 0;  // than positions
  const uint64_t count = std::min(length_ + more, starts_.back() - begin);
  out = {};
  std::vector<int32_t>& ids = out.input_ids;
  ids.resize(count);
  size_t range = find_part(starts_, begin);
  for (uint64_t done = 0; done < count; ++range) {
    const uint64_t from = begin + done - starts_[range];
    const uint64_t take = std::min(count - done, starts_[range + 1] - starts_[range] - from);
    shards_->read(ranges_[range].begin + from, std::span(ids).subspan(done, take));
    done += take;
  }
  ids.insert(ids.begin(), options_.before.begin(), options_.before.end());
  ids.insert(ids.end(), options_.after.begin(), options_.after.end());
  if (!options_.next_as_label) return;
  out.labels.assign(ids.begin() + 1, ids.end());
  ids.pop_back();
}

std::string StreamRows::place(uint64_t row, size_t offset) const {
  const uint64_t at = row * length_ + (offset - std::min(offset, options_.before.size()));
  const size_t range = find_part(starts_, at);
  return shards_->place(ranges_[range].begin + at - starts_[range]);
}

std::string StreamRows::identity() const {
  std::string text = shards_->identity() + "/" + std::to_string(length_);
  if (!options_.next_as_label) text += "/plain";
  for (const int32_t id : options_.before) text += "<" + std::to_string(id);
  for (const int32_t id : options_.after) text += ">" + std::to_string(id);
  for (const auto& range : ranges_) text += ":" + std::to_string(range.begin) + "-" + std::to_string(range.end);
  return text;
}

HeldOut hold_out(const TokenShards& shards, double fraction, int64_t length) {
  const uint64_t size = shards.size();
  const double held_rows = fraction * static_cast<double>(size) / static_cast<double>(length);
  const uint64_t stretches = std::clamp<uint64_t>(static_cast<uint64_t>(held_rows) / kRowsHeldOutEach, 1, kStretches);
  // The end of the document that stands at `at`, if it is before `limit`; else `at`.
  const auto document_end = [&](uint64_t at, uint64_t limit) {
    if (!shards.eos_id() || at == 0 || at >= limit) return at;
    const uint64_t eos = shards.find(*shards.eos_id(), at - 1, limit);
    return eos < limit ? eos + 1 : at;
  };
  HeldOut out;
  const auto held = static_cast<uint64_t>(fraction * static_cast<double>(size) / static_cast<double>(stretches));
  for (uint64_t i = 0, begin = 0; i < stretches; ++i) {
    const uint64_t end =
        i + 1 == stretches ? size : document_end(size * (i + 1) / stretches, size * (i + 1) / stretches + held / 2);
    const uint64_t cut = document_end(end - std::min(held, end - begin), end - held / 2);
    out.train.push_back({begin, cut});
    out.validation.push_back({cut, end});
    begin = end;
  }
  return out;
}

uint64_t RowSource::length(uint64_t row) const {
  Example example;
  read(row, example);
  return example.input_ids.size();
}

// --- TokenizedRows ---

bool TokenizedRows::is_tokenized(const std::string& path) {
  if (!fs::is_regular_file(path) || !(path.ends_with(".jsonl") || path.ends_with(".ndjson"))) return false;
  const MappedFile file{path};
  std::string_view text = file.text();
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (is_empty_row(line)) continue;
    const json row = json::parse(line, nullptr, false);
    return row.is_object() && row.contains("input_ids");
  }
  return false;
}

TokenizedRows::TokenizedRows(const fs::path& path, int64_t max_length, TokenizedLabels kind)
    : file_(path), max_length_(max_length), kind_(kind) {
  const std::string_view text = file_.text();
  for (size_t i = text.starts_with("\xEF\xBB\xBF") ? 3 : 0; i < text.size();) {
    const size_t end = std::min(text.find('\n', i), text.size());
    if (!is_empty_row(text.substr(i, end - i))) offsets_.push_back(i);
    i = end + 1;
  }
  Checksum sum;
  sum.update(file_.bytes());
  identity_ = sum.hex();
  look_at_all();
}

void TokenizedRows::look_at_all() {
  Example example;
  uint64_t idle = 0, first_idle = 0;
  for (uint64_t row = 0; row < rows(); ++row) {
    read(row, example);
    tokens_ += example.input_ids.size();
    // They are made where a row is drawn.
    if (kind_ != TokenizedLabels::shifted && example.labels.empty()) continue;
    if (std::ranges::any_of(example.labels, [](int32_t id) { return id != kIgnore; })) continue;
    if (idle++ == 0) first_idle = row;
  }
  if (idle == 0) return;
  const std::string where = file_.path().string() + ":" + std::to_string(line_of(first_idle));
  if (idle == rows())
    throw Error(Exit::data, {.what = "no row has a label to train on",
                             .where = file_.path().string(),
                             .expected = "labels other than -100 behind the first id",
                             .hint = "was everything masked, or the answer cut off?"});
  log::warn(where + ": no label to train on, as in " + std::to_string(idle) + " of " + std::to_string(rows()) +
            " rows");
}

uint64_t TokenizedRows::line_of(uint64_t row) const {
  return 1 + static_cast<uint64_t>(
                 std::count(file_.text().begin(), file_.text().begin() + static_cast<int64_t>(offsets_[row]), '\n'));
}

std::string TokenizedRows::place(uint64_t row, size_t offset) const {
  return file_.path().string() + ":" + std::to_string(line_of(row)) + ", token " + std::to_string(offset);
}

void TokenizedRows::read(uint64_t row, Example& out) const {
  LLMTK_CHECK(row < rows());
  const auto bad = [&](Error::Parts parts) {
    parts.where = file_.path().string() + ":" + std::to_string(line_of(row));
    return Error(Exit::data, std::move(parts));
  };
  std::string_view line = file_.text().substr(offsets_[row]);
  line = line.substr(0, line.find('\n'));
  const json value = json::parse(line, nullptr, false);
  if (!value.is_object() || !value.contains("input_ids"))
    throw bad({.what = "not a row of ids", .expected = "{\"input_ids\": [...], \"labels\": [...]}"});
  const auto numbers = [&](const char* key) {
    const json& list = value.at(key);
    if (!list.is_array())
      throw bad({.what = std::string("'") + key + "'", .got = list.type_name(), .expected = "a list of integers"});
    if (list.size() > static_cast<size_t>(max_length_))
      throw bad({.what = std::string("'") + key + "' is longer than data.max_length",
                 .got = std::to_string(list.size()),
                 .expected = "at most " + std::to_string(max_length_),
                 .hint = "raise data.max_length, or shorten the row: nothing is cut off silently"});
    std::vector<int32_t> ids(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
      if (!list[i].is_number_integer() || list[i].get<int64_t>() > kMax || list[i].get<int64_t>() < -kMax)
        throw bad({.what = std::string("'") + key + "'[" + std::to_string(i) + "]",
                   .got = list[i].dump(),
                   .expected = "an integer"});
      ids[i] = list[i].get<int32_t>();
    }
    return ids;
  };
  out = {};
  out.input_ids = numbers("input_ids");
  if (out.input_ids.empty()) throw bad({.what = "'input_ids' is empty"});
  const bool given = value.contains("labels");
  if (given) out.labels = numbers("labels");
  if (kind_ == TokenizedLabels::separate) return;
  if (given && out.labels.size() != out.input_ids.size())
    throw bad({.what = "'labels' and 'input_ids' differ in length",
               .got = std::to_string(out.labels.size()),
               .expected = std::to_string(out.input_ids.size())});
  if (kind_ == TokenizedLabels::aligned) return;
  if (!given) out.labels = out.input_ids;
  out.labels.erase(out.labels.begin());
  out.labels.push_back(kIgnore);
}

// --- JoinedRows ---

JoinedRows::JoinedRows(std::vector<std::shared_ptr<RowSource>> parts) : parts_(std::move(parts)) {
  for (const auto& part : parts_) starts_.push_back(starts_.back() + part->rows());
}

size_t JoinedRows::part_of(uint64_t row) const {
  LLMTK_CHECK(row < rows());
  return static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), row) - starts_.begin()) - 1;
}

uint64_t JoinedRows::tokens() const {
  uint64_t sum = 0;
  for (const auto& part : parts_) sum += part->tokens();
  return sum;
}

void JoinedRows::read(uint64_t row, Example& out) const {
  const size_t part = part_of(row);
  parts_[part]->read(row - starts_[part], out);
}

uint64_t JoinedRows::length(uint64_t row) const {
  const size_t part = part_of(row);
  return parts_[part]->length(row - starts_[part]);
}

std::string JoinedRows::place(uint64_t row, size_t offset) const {
  const size_t part = part_of(row);
  return parts_[part]->place(row - starts_[part], offset);
}

std::string JoinedRows::identity() const {
  std::string text;
  for (const auto& part : parts_) text += (text.empty() ? "" : "+") + part->identity();
  return text;
}

}  // namespace llmtk::data
