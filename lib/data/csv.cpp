#include "data/csv.h"

#include <algorithm>

namespace llmtk::data {

size_t find_record_end(std::string_view text, size_t begin, char delimiter) {
  CsvScanner scanner(delimiter);
  for (size_t i = begin; i < text.size(); ++i)
    if (scanner.eat(text[i])) return i + 1;
  return text.size();
}

std::string split_record(std::string_view record, char delimiter, std::vector<std::string>& fields) {
  if (record.ends_with('\n')) record.remove_suffix(1);
  if (record.ends_with('\r')) record.remove_suffix(1);
  fields.clear();
  for (size_t i = 0;; ++i) {  // i: the beginning of a field; at the loop's end its delimiter
    std::string& field = fields.emplace_back();
    if (i < record.size() && record[i] == '"') {
      for (++i;; ++i) {
        const size_t quote = record.find('"', i);
        if (quote == record.npos) return "a quoted field is not closed";
        field += record.substr(i, quote - i);
        i = quote + 1;
        if (i >= record.size() || record[i] != '"') break;
        field += '"';
      }
      if (i < record.size() && record[i] != delimiter) return "text behind the closing quote of a field";
    } else {
      const size_t end = std::min(record.find(delimiter, i), record.size());
      field = record.substr(i, end - i);
      i = end;
    }
    if (i >= record.size()) return {};
  }
}

}  // namespace llmtk::data
