#include "data_show.h"

#include <algorithm>
#include <cmath>

#include "core/utf8.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

using data::Example;
using data::kIgnore;
using nlohmann::ordered_json;
using Ids = std::span<const int32_t>;

constexpr const char* kOpen = "\u27E6";   // ⟦
constexpr const char* kClose = "\u27E7";  // ⟧
constexpr const char* kGreen = "\x1b[32m";
constexpr const char* kPlain = "\x1b[0m";

class Writer {
 public:
  Writer(const text::Tokenizer& tokenizer, const ShowOptions& options) : tokenizer_(tokenizer), options_(options) {}

  void ids(Ids ids, const std::vector<bool>& trained) {
    for (size_t begin = 0, end = 0; begin < ids.size(); begin = end) {
      while (end < ids.size() && trained[end] == trained[begin]) ++end;
      marked(ids.subspan(begin, end - begin), trained[begin]);
    }
  }
  void marked(Ids ids, bool trained) {
    if (trained) out_ += options_.color ? kGreen : kOpen;
    std::string bytes;
    for (const int32_t id : ids) {
      if (options_.ids)
        bytes += std::to_string(id) + ":" + one_line(tokenizer_.token_bytes(id)) + " ";
      else
        bytes += tokenizer_.token_bytes(id);
    }
    if (options_.ids && !bytes.empty()) bytes.pop_back();
    out_ += options_.ids ? bytes : printable(bytes);
    if (trained) out_ += options_.color ? kPlain : kClose;
    if (options_.ids) out_ += ' ';
  }
  void line(const std::string& text) { out_ += (out_.empty() || out_.ends_with('\n') ? "" : "\n") + text + "\n"; }
  void text(const std::string& text) { out_ += text; }
  std::string take() { return std::move(out_); }

 private:
  const text::Tokenizer& tokenizer_;
  const ShowOptions& options_;
  std::string out_;
};

/// Which tokens a decoder is asked for: those whose place before has a label.
std::vector<bool> asked_next(const Example& example) {
  std::vector<bool> asked(example.input_ids.size());
  for (size_t t = 1; t < asked.size(); ++t) asked[t] = example.labels[t - 1] != kIgnore;
  return asked;
}

std::string name_of_label(const std::vector<std::string>& names, int32_t label) {
  const auto index = static_cast<size_t>(label);
  return index < names.size() ? names[index] : std::to_string(label);
}

std::string where_of(const data::RowSource& rows, uint64_t row) {
  const std::string place = rows.place(row, 0);
  return place.substr(0, place.rfind(", token"));
}

/// Packed rows: each text by itself.
void write_decoder_row(Writer& out, const Example& example) {
  const auto asked = asked_next(example);
  const Ids ids = example.input_ids;
  size_t begin = 0;
  for (size_t t = 1; t <= ids.size(); ++t) {
    const bool ends = t == ids.size() || (!example.position_ids.empty() && example.position_ids[t] == 0);
    if (!ends) continue;
    out.ids(ids.subspan(begin, t - begin),
            {asked.begin() + static_cast<std::ptrdiff_t>(begin), asked.begin() + static_cast<std::ptrdiff_t>(t)});
    if (t < ids.size()) out.line("  -- next text, which does not see those before --");
    begin = t;
  }
}

/// Answers side by side: two that are compared, or one that is rated and one of another prompt.
void write_answers(Writer& out, const Example& example, data::Objective objective) {
  const auto asked = asked_next(example);
  const bool rated = objective == data::Objective::unpaired_preference;
  const std::string first = !rated ? "chosen" : example.values.at(0) > 0 ? "wanted" : "not wanted";
  const std::string names[] = {first, rated ? "another row's answer, for the KL" : "rejected"};
  size_t begin = 0, text = 0;
  for (const size_t end : data::text_ends(example)) {
    out.line("  -- " + names[text++] + " --");
    out.ids(Ids(example.input_ids).subspan(begin, end - begin),
            {asked.begin() + static_cast<std::ptrdiff_t>(begin), asked.begin() + static_cast<std::ptrdiff_t>(end)});
    begin = end;
  }
  if (!rated && !example.values.empty()) out.line("  margin: " + fixed(example.values[0], 4));
}

void write_labels(Writer& out, const Example& example, const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < example.values.size(); ++i) {
    const bool named = names.size() == example.values.size() && names.size() > 1;
    text += (text.empty() ? "" : ", ") + (named ? names[i] + " " : "") + fixed(example.values[i], 4);
  }
  for (const int32_t label : example.labels) text += name_of_label(names, label);
  out.line("  label: " + text);
}

/// A word is the token that is asked for and those behind it.
void write_tags(Writer& out, const Example& example, const std::vector<std::string>& names,
                const text::Tokenizer& tokenizer) {
  const Ids ids = example.input_ids;
  for (size_t begin = 0, end = 0; begin < ids.size(); begin = end) {
    const int32_t label = example.labels[begin];
    end = begin + 1;
    while (end < ids.size() && example.labels[end] == kIgnore && !tokenizer.is_special(ids[end])) ++end;
    out.marked(ids.subspan(begin, end - begin), label != kIgnore);
    out.text(label != kIgnore ? "/" + name_of_label(names, label) + " " : " ");
  }
}

ordered_json quantiles(std::vector<uint64_t> lengths) {
  std::ranges::sort(lengths);
  const auto at = [&](double share) {
    return lengths[static_cast<size_t>(std::floor(share * static_cast<double>(lengths.size() - 1)))];
  };
  return {{"min", lengths.front()}, {"p50", at(0.5)}, {"p90", at(0.9)}, {"p99", at(0.99)}, {"max", lengths.back()}};
}

double ratio(uint64_t part, uint64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

std::string percent(double share) { return fixed(100 * share, 1) + " %"; }

}  // namespace

std::string show_row(const data::RowSource& rows, uint64_t row, const std::vector<std::string>& labels,
                     const text::Tokenizer& tokenizer, const ShowOptions& options) {
  Example example;
  rows.read(row, example);
  Writer out(tokenizer, options);
  out.line("=== row " + std::to_string(row + 1) + " of " + std::to_string(rows.rows()) + ", " + where_of(rows, row) +
           ": " + std::to_string(example.input_ids.size()) + " tokens, " + std::to_string(num_asked(example)) +
           (options.objective == data::Objective::masked_lm ? " trained on before tokens are hidden" : " trained on"));
  const std::vector<bool> none(example.input_ids.size());
  switch (options.objective) {
    case data::Objective::causal_lm:
      write_decoder_row(out, example);
      break;
    case data::Objective::seq2seq:
      out.ids(example.input_ids, none);
      out.line("  -- target --");
      out.marked(example.labels, true);
      break;
    case data::Objective::masked_lm:
      out.ids(example.input_ids, none);
      break;
    case data::Objective::sequence_classification:
      out.ids(example.input_ids, none);
      write_labels(out, example, labels);
      break;
    case data::Objective::preference:
    case data::Objective::unpaired_preference:
      write_answers(out, example, options.objective);
      break;
    case data::Objective::token_classification:
      write_tags(out, example, labels, tokenizer);
      break;
  }
  out.line("");
  return out.take();
}

ordered_json json_of_row(const data::RowSource& rows, uint64_t row, const text::Tokenizer& tokenizer) {
  Example example;
  rows.read(row, example);
  ordered_json json = {{"row", row + 1},
                       {"where", where_of(rows, row)},
                       {"tokens", example.input_ids.size()},
                       {"trained_tokens", num_asked(example)},
                       {"text", tokenizer.decode(example.input_ids)},
                       {"input_ids", example.input_ids}};
  if (!example.labels.empty()) json["labels"] = example.labels;
  if (!example.values.empty()) json["values"] = example.values;
  if (!example.position_ids.empty()) json["position_ids"] = example.position_ids;
  if (!example.token_type_ids.empty()) json["token_type_ids"] = example.token_type_ids;
  return json;
}

ordered_json describe_rows(const data::RowSource& rows, const data::FinetuneStatistics& found,
                           const data::FinetuningData& data, bool packed) {
  ordered_json json = found.json();
  json["trained_share"] = ratio(found.trained_tokens, found.tokens);
  std::vector<uint64_t> lengths;
  std::vector<uint64_t> counts(data.label_names.size());
  Example example;
  for (uint64_t row = 0; row < rows.rows(); ++row) {
    lengths.push_back(rows.length(row));
    if (counts.empty()) continue;
    rows.read(row, example);
    for (const int32_t label : example.labels)
      if (label != kIgnore) ++counts[static_cast<size_t>(label)];
    if (data.problem_type == "multi_label_classification")
      for (size_t c = 0; c < example.values.size(); ++c) counts[c] += example.values[c] == 1.0f;
  }
  json["lengths"] = quantiles(lengths);
  if (packed)
    json["packing"] = {{"rows", rows.rows()},
                       {"fill", ratio(found.tokens, rows.rows() * static_cast<uint64_t>(data.max_length))}};
  if (!counts.empty() && data.problem_type != "regression") {
    ordered_json labels = ordered_json::object();
    for (size_t c = 0; c < counts.size(); ++c) labels[data.label_names[c]] = counts[c];
    json["labels"] = std::move(labels);
  }
  return json;
}

std::string show_description(const std::string& name, const ordered_json& json) {
  const auto number = [&](const char* key) { return json.at(key).get<uint64_t>(); };
  const auto commas = [&](const char* key) { return with_commas(static_cast<int64_t>(number(key))); };
  std::string out = name + ": " + commas("rows") + " rows, " + commas("tokens") + " tokens, " +
                    commas("trained_tokens") + " trained on (" + percent(json.at("trained_share")) + ")\n";
  const auto& lengths = json.at("lengths");
  out += "  lengths:";
  for (const auto& [key, value] : lengths.items()) out += " " + key + " " + value.dump();
  out += "\n";
  if (json.contains("packing"))
    out += "  packed: " + json["packing"]["rows"].dump() + " rows, " + percent(json["packing"]["fill"]) + " full\n";
  const std::pair<const char*, const char*> kinds[] = {
      {"cut", "rows cut"},
      {"cut_tokens", "tokens cut"},
      {"answers_cut", "rows whose end is not trained, since it is cut"},
      {"dropped", "rows dropped as too long"},
      {"skipped", "bad rows skipped"},
      {"untrained", "rows with nothing to train on, left out"},
      {"doubled_bos", "rows with a doubled bos"},
      {"untrained_eos", "rows that train no end of text"},
      {"words_cut", "words that do not count"}};
  for (const auto& [key, what] : kinds)
    if (number(key) > 0) out += "  " + commas(key) + " " + what + "\n";
  if (json.contains("labels")) {
    out += "  labels:";
    for (const auto& [label, count] : json["labels"].items()) out += " " + printable(label) + " " + count.dump();
    out += "\n";
  }
  return out;
}

}  // namespace llmtk
