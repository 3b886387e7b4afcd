#pragma once
// What cutting files into blocks and parsing the blocks share. For data/reader.cpp and data/parse.cpp.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "data/files.h"

namespace llmtk::data {

inline constexpr size_t kNone = std::string_view::npos;
inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
inline constexpr const char* kOtherwise =
    "bad lines can be skipped or replaced: --bad-lines, in a config data.on_bad_line";

inline bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\v\f") == kNone; }
inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

inline std::string place(const SourceFile& file, uint64_t line) {
  return file.path.string() + ":" + std::to_string(line);
}

/// Finds the ends of the top-level values of a stream of JSON, `[` and `,` between them left aside.
class JsonScanner {
 public:
  /// Eats one byte; true when it ends a value.
  bool eat(char c) {
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
        return depth_ == 0;
      }
      return false;
    }
    if (depth_ == 0) {
      if (is_space(c) || c == ',' || c == '[' || c == ']') return std::exchange(bare_, false);
      if (c == '"') in_string_ = true;
      if (c == '{') depth_ = 1;
      bare_ = c != '"' && c != '{';
      return false;
    }
    if (c == '"') in_string_ = true;
    if (c == '{' || c == '[') ++depth_;
    if (c == '}' || c == ']') --depth_;
    return depth_ == 0;
  }
  bool inside() const { return depth_ > 0 || in_string_ || bare_; }

 private:
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false, bare_ = false;
};

}  // namespace llmtk::data
