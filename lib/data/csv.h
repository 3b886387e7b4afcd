#pragma once
// Comma- or tab-separated values (RFC 4180): fields may stand in quotes, with "" for a quote and line ends inside.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::data {

/// Finds the ends of records, byte by byte.
class CsvScanner {
 public:
  explicit CsvScanner(char delimiter) : delimiter_(delimiter) {}
  /// Eats one byte; true when it is the line feed that ends a record.
  bool eat(char c) {
    if (in_quotes_) {
      in_quotes_ = c != '"';
      after_quote_ = !in_quotes_;
      return false;
    }
    if (c == '"' && (field_begins_ || after_quote_)) {  // a quote inside a bare field is a character like any other
      in_quotes_ = true;
      field_begins_ = after_quote_ = false;
      return false;
    }
    after_quote_ = false;
    field_begins_ = c == delimiter_ || c == '\n';
    return c == '\n';
  }
  bool in_quotes() const { return in_quotes_; }

 private:
  char delimiter_;
  bool in_quotes_ = false, after_quote_ = false, field_begins_ = true;
};

/// Where the record that begins at `begin` ends: behind its line feed, or at the end of the text.
size_t find_record_end(std::string_view text, size_t begin, char delimiter);

/// The fields of one record, with or without its line end. Returns what is wrong with it; empty when nothing is.
std::string split_record(std::string_view record, char delimiter, std::vector<std::string>& fields);

}  // namespace llmtk::data
