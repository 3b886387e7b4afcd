#pragma once
// Rows of JSON lines, as the subcommands of `llmtk eval` read them.

#include <string>
#include <vector>

#include "eval/eval.h"

namespace llmtk {

/// A JSON object and where it stands.
struct Row {
  Json json;
  std::string where;  ///< "file:line"
};
/// The rows of a file of JSON lines; blank lines are none. Throws Error(data) for a line that is not a JSON object, and
/// for a file without rows.
std::vector<Row> read_rows(const std::string& file);
/// A text of a row. Throws Error(data) that names the row.
std::string text_field_of(const Row& row, const std::string& key);

}  // namespace llmtk
