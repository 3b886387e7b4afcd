#pragma once
// Tables on a terminal, aligned by the width that characters take there.

#include <cstdint>
#include <string>
#include <vector>

namespace llmtk {

/// Columns are as wide as their widest cell; those named in `right` (by index) are aligned to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> titles, std::vector<size_t> right = {});
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<size_t> right_;
};

/// "124,439,808".
std::string with_commas(int64_t number);
/// "474.7 MiB".
std::string readable_bytes(double bytes);
/// printf's "%.*f".
std::string fixed(double value, int decimals);

}  // namespace llmtk
