#include "eval/rows.h"

#include <fstream>

#include "core/error.h"
#include "core/file.h"
#include "core/utf8.h"

namespace llmtk {

std::vector<Row> read_rows(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in || fs::is_directory(file)) throw Error(Exit::file, {.what = "cannot read the rows", .where = file});
  std::vector<Row> rows;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    Row row{Json::parse(line, nullptr, /*allow_exceptions=*/false), file + ":" + std::to_string(number)};
    if (!row.json.is_object())
      throw Error(Exit::data, {.what = "not a row of JSON lines",
                               .where = row.where,
                               .got = std::string(cut_to_width(printable(line), 60)),
                               .expected = "a JSON object"});
    rows.push_back(std::move(row));
  }
  if (rows.empty()) throw Error(Exit::data, {.what = "no rows", .where = file, .expected = "JSON lines"});
  return rows;
}

std::string text_field_of(const Row& row, const std::string& key) {
  const auto found = row.json.find(key);
  if (found != row.json.end() && found->is_string()) return found->get<std::string>();
  throw Error(Exit::data, {.what = "a row without the text '" + key + "'",
                           .where = row.where,
                           .got = found == row.json.end() ? "no such key" : std::string(found->type_name())});
}

}  // namespace llmtk
