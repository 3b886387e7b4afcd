// parse_block: the documents of a block of bytes.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/utf8.h"
#include "data/csv.h"
#include "data/reader.h"
#include "data/scan.h"
#include "text/unicode.h"

namespace llmtk::data {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr size_t kComplaints = 5;  // per block; enough to see what is wrong
constexpr const char* kConvert = "is it another encoding? iconv -f GB18030 -t UTF-8 FILE > NEW converts";

class Parser {
 public:
  /// rows: where whole rows go, in place of their text; may be null.
  Parser(const Block& block, const SourceFile& file, const ReadOptions& options, std::vector<JsonRow>* rows = nullptr)
      : block_(block), file_(file), options_(options), rows_(rows) {}

  ParsedBlock run() {
    std::string_view bytes = block_.bytes;
    if (block_.begin.offset == 0) {
      if (bytes.starts_with("\xFF\xFE") || bytes.starts_with("\xFE\xFF"))
        throw Error(Exit::data, {.what = "the file is UTF-16",
                                 .where = file_.path.string(),
                                 .expected = "UTF-8",
                                 .hint = "convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"});
      if (bytes.starts_with(kByteOrderMark)) bytes.remove_prefix(kByteOrderMark.size());
    }
    if (block_.too_long > 0) {
      out_.skipped += block_.too_long;
      complain(block_.begin.line - 1, "the line is longer than " + std::to_string(options_.max_line_bytes) + " bytes");
    }
    out_.continues = block_.begin.in_document;
    out_.open = block_.open;
    if (file_.kind == FileKind::jsonl) parse_lines(bytes);
    if (file_.kind == FileKind::json) parse_values(bytes);
    if (file_.kind == FileKind::text) parse_text(bytes);
    if (const char delimiter = delimiter_of(file_.kind)) parse_table(bytes, delimiter);
    return std::move(out_);
  }

 private:
  void complain(uint64_t line, const std::string& what) {
    if (out_.complaints.size() < kComplaints) out_.complaints.push_back(place(file_, line) + ": " + what);
  }

  /// A line that cannot be used: an error, or left out and counted.
  void bad(uint64_t line, Error::Parts parts) {
    parts.where = place(file_, line);
    if (options_.on_bad_line == BadLine::stop && parts.hint.empty()) parts.hint = kOtherwise;
    const Error error(Exit::data, std::move(parts));
    if (options_.on_bad_line == BadLine::stop) throw error;
    ++out_.skipped;
    if (out_.complaints.size() < kComplaints) out_.complaints.push_back(error.what());
  }

  /// Text that is UTF-8, mended if need be in `mended`; false when it is left out. `line` is where it begins.
  bool check_utf8(std::string_view& text, std::string& mended, uint64_t line) {
    const size_t at = find_invalid_utf8(text);
    if (at == kNone) return true;
    const std::string_view before = text.substr(0, at);
    line += static_cast<uint64_t>(std::ranges::count(before, '\n'));
    char byte[8];
    std::snprintf(byte, sizeof byte, "0x%02X", static_cast<unsigned char>(text[at]));
    if (options_.on_bad_line != BadLine::replace) {
      const size_t column = at - (before.rfind('\n') + 1);  // kNone + 1 is 0
      bad(line,
          {.what = "not UTF-8: byte " + std::string(byte) + " at byte " + std::to_string(column + 1) + " of the line",
           .hint = options_.on_bad_line == BadLine::stop ? std::string(kConvert) + "; " + kOtherwise : ""});
      return false;
    }
    ++out_.replaced;
    complain(line, "not UTF-8: byte " + std::string(byte) + " replaced by U+FFFD");
    mended = text::replace_invalid_utf8(text);
    text = mended;
    return true;
  }

  template <class Row>
  bool parse_object(std::string_view text, uint64_t line, Row& row) {
    try {
      row = Row::parse(text);
    } catch (const json::exception& e) {
      const std::string message = e.what();
      const size_t column = message.find("column ");
      bad(line, {.what = "not JSON: " + (column == kNone ? message : message.substr(column))});
      return false;
    }
    if (row.is_object()) return true;
    bad(line, {.what = "not a JSON object",
               .got = row.type_name(),
               .expected = rows_ ? "{\"key\": value, ...}" : "{\"" + options_.text_field + "\": ...}"});
    return false;
  }

  void add_row(std::string_view text, uint64_t line) {
    std::string mended;
    if (!check_utf8(text, mended, line)) return;
    if (rows_) {
      ordered_json row;
      if (parse_object(text, line, row)) rows_->push_back({std::move(row), line});
      return;
    }
    json row;
    if (!parse_object(text, line, row)) return;
    const auto field = row.find(options_.text_field);
    if (field == row.end()) {
      std::string keys;
      for (const auto& [key, value] : row.items()) keys += (keys.empty() ? "'" : ", '") + key + "'";
      return bad(line, {.what = "the row has no field '" + options_.text_field + "'",
                        .got = keys.empty() ? "{}" : keys,
                        .hint = "--text-field, in a config text_field, names the field that holds the text"});
    }
    if (!field->is_string())
      return bad(line,
                 {.what = "field '" + options_.text_field + "'", .got = field->type_name(), .expected = "a string"});
    auto& value = field->get_ref<std::string&>();
    if (value.empty() && !options_.keep_empty) {
      ++out_.empty;
    } else {
      out_.documents.push_back({std::move(value)});
    }
  }

  std::vector<std::string> column_names(char delimiter) const {
    if (find_invalid_utf8(block_.header) != kNone)
      throw bad_header({.what = "the first line, which names the columns, is not UTF-8", .hint = kConvert});
    std::vector<std::string> columns;
    if (const std::string wrong = split_record(block_.header, delimiter, columns); !wrong.empty())
      throw bad_header({.what = wrong, .expected = "a first line that names the columns"});
    return columns;
  }

  Error bad_header(Error::Parts parts) const {
    parts.where = place(file_, 1);
    return Error(Exit::data, std::move(parts));
  }

  /// The place of the text's column.
  size_t find_column(const std::vector<std::string>& columns) const {
    const auto found = std::ranges::find(columns, options_.text_field);
    if (found != columns.end()) return static_cast<size_t>(found - columns.begin());
    std::string names;
    for (const auto& name : columns) names += (names.empty() ? "'" : ", '") + name + "'";
    throw bad_header({.what = "no column is named '" + options_.text_field + "'",
                      .got = names,
                      .hint = "--text-field, in a config text_field, names the column that holds the text"});
  }

  void parse_table(std::string_view bytes, char delimiter) {
    const std::vector<std::string> columns = column_names(delimiter);
    const size_t column = rows_ ? 0 : find_column(columns);
    uint64_t line = block_.begin.line;
    std::vector<std::string> fields;
    for (size_t i = 0; i < bytes.size();) {
      const size_t end = find_record_end(bytes, i, delimiter);
      std::string_view record = bytes.substr(i, end - i);
      const uint64_t at = line;
      const bool names = i == 0 && block_.begin.offset == 0;
      line += static_cast<uint64_t>(std::ranges::count(record, '\n'));
      i = end;
      std::string mended;
      if (names || record == "\n" || record == "\r\n" || !check_utf8(record, mended, at)) continue;
      if (const std::string wrong = split_record(record, delimiter, fields); !wrong.empty()) {
        bad(at, {.what = wrong});
      } else if (fields.size() != columns.size()) {
        bad(at, {.what = "the number of fields",
                 .got = std::to_string(fields.size()),
                 .expected = std::to_string(columns.size()) + ", as in the first line"});
      } else if (rows_) {
        ordered_json row;
        for (size_t c = 0; c < columns.size(); ++c) row[columns[c]] = std::move(fields[c]);
        rows_->push_back({std::move(row), at});
      } else if (fields[column].empty() && !options_.keep_empty) {
        ++out_.empty;
      } else {
        out_.documents.push_back({std::move(fields[column])});
      }
    }
  }

  void parse_lines(std::string_view bytes) {
    uint64_t line = block_.begin.line;
    for (size_t i = 0; i < bytes.size(); ++line) {
      const size_t end = std::min(bytes.find('\n', i), bytes.size());
      const std::string_view text = bytes.substr(i, end - i);
      if (!is_blank(text)) add_row(text, line);
      i = end + 1;
    }
  }

  void parse_values(std::string_view bytes) {
    JsonScanner scanner;
    uint64_t line = block_.begin.line;
    size_t start = kNone;
    uint64_t start_line = line;
    for (size_t i = 0; i < bytes.size(); ++i) {
      const bool ended = scanner.eat(bytes[i]);
      if (start == kNone && scanner.inside()) {
        start = i;
        start_line = line;
      }
      if (ended) {
        const bool closed = bytes[start] == '{' || bytes[start] == '"';  // else bytes[i] is what follows the value
        add_row(bytes.substr(start, i + closed - start), start_line);
        start = kNone;
      }
      if (bytes[i] == '\n') ++line;
    }
    if (start != kNone) add_row(bytes.substr(start), start_line);
  }

  /// The lines of a text that are UTF-8 or could be mended, CRLF turned to LF.
  std::string clean_lines(std::string_view bytes) {
    std::string out;
    out.reserve(bytes.size());
    const bool well_formed = find_invalid_utf8(bytes) == kNone;
    uint64_t line = block_.begin.line;
    for (size_t i = 0; i < bytes.size(); ++line) {
      const size_t newline = bytes.find('\n', i);
      const size_t end = newline == kNone ? bytes.size() : newline;
      std::string_view text = bytes.substr(i, end - i);
      i = end + 1;
      if (newline != kNone && text.ends_with('\r')) text.remove_suffix(1);
      std::string mended;
      if (!well_formed && !check_utf8(text, mended, line)) continue;
      out += text;
      if (newline != kNone) out += '\n';
    }
    return out;
  }

  void parse_text(std::string_view bytes) {
    std::string cleaned;
    if (bytes.find('\r') != kNone || find_invalid_utf8(bytes) != kNone) {
      cleaned = clean_lines(bytes);
      bytes = cleaned;
    }
    switch (options_.document) {
      case DocumentUnit::file:
        if (!bytes.empty() || out_.continues || options_.keep_empty)
          out_.documents.push_back({std::string(bytes), block_.begin.line});
        break;
      case DocumentUnit::line:
        split_lines(bytes);
        break;
      case DocumentUnit::blank_line:
        split_paragraphs(bytes);
        break;
    }
  }

  void split_lines(std::string_view bytes) {
    bool first = out_.continues;  // the rest of a long line may well be empty, and still ends its document
    uint64_t line = block_.begin.line;
    for (size_t i = 0; i < bytes.size() || first; ++line) {
      const size_t end = std::min(bytes.find('\n', i), bytes.size());
      const std::string_view text = bytes.substr(i, end - i);
      if (first || options_.keep_empty || !is_blank(text)) out_.documents.push_back({std::string(text), line});
      first = false;
      i = end + 1;
    }
  }

  void split_paragraphs(std::string_view bytes) {
    std::string paragraph;
    uint64_t begin = block_.begin.line, number = begin;
    bool any = out_.continues;
    bool mid_line = block_.begin.mid_line;  // then the first line is the rest of one, and not blank as a whole
    const auto finish = [&] {
      if (!any) return;
      if (paragraph.ends_with('\n')) paragraph.pop_back();
      out_.documents.push_back({std::move(paragraph), begin});
      paragraph.clear();
      any = false;
    };
    for (size_t i = 0; i < bytes.size(); ++number) {
      const size_t newline = bytes.find('\n', i);
      const size_t end = newline == kNone ? bytes.size() : newline + 1;
      const std::string_view line = bytes.substr(i, end - i);
      i = end;
      if (!std::exchange(mid_line, false) && is_blank(line.substr(0, line.size() - (newline != kNone)))) {
        finish();
        continue;
      }
      if (!any) begin = number;
      paragraph += line;
      any = true;
    }
    if (out_.open && any) {
      out_.documents.push_back({std::move(paragraph), begin});
    } else {
      finish();
      // The block ended on a blank line after all; nothing of the open document stands in it.
      if (out_.open) out_.open = false;
    }
  }

  const Block& block_;
  const SourceFile& file_;
  const ReadOptions& options_;
  std::vector<JsonRow>* rows_;
  ParsedBlock out_;
};

}  // namespace

ParsedBlock parse_block(const Block& block, const SourceFile& file, const ReadOptions& options) {
  return Parser(block, file, options).run();
}

ParsedRows parse_rows(const Block& block, const SourceFile& file, const ReadOptions& options) {
  ParsedRows out;
  try {
    ParsedBlock parsed = Parser(block, file, options, &out.rows).run();
    out.skipped = parsed.skipped;
    out.replaced = parsed.replaced;
    out.complaints = std::move(parsed.complaints);
    if (parsed.continues || parsed.open)
      throw Error(Exit::data, {.what = "a text is too long for one row",
                               .where = place(file, block.begin.line),
                               .expected = "at most " + std::to_string(options.piece_bytes) + " bytes",
                               .hint = "say what a row is by document: line or blank_line"});
    for (Document& document : parsed.documents)
      out.rows.push_back({{{"text", std::move(document.text)}}, document.line});
  } catch (const Error&) {
    out.error = std::current_exception();
  }
  return out;
}

}  // namespace llmtk::data
