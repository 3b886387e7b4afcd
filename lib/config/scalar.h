#pragma once
// Scalars: text to bool, integer and number, and back to YAML.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace llmtk::config {

/// A value, or what was expected instead and how to mend it.
template <class T>
struct Parsed {
  std::optional<T> value;
  std::string expected, hint;
};

Parsed<bool> parse_bool(std::string_view text);
/// 42, +42, 1_000, and 3.0 or 1e3, which are whole. Not 0x10, 010, 10k.
Parsed<int64_t> parse_integer(std::string_view text);
/// 1e-4, .5, 3, 1_000.5; finite.
Parsed<double> parse_number(std::string_view text);

/// Whether a plain (unquoted) scalar is something other than text to a YAML reader: a number, bool, null or date, in
/// YAML 1.1 or 1.2.
bool reads_as_other_than_text(std::string_view text);
bool is_null_word(std::string_view text);

/// The shortest decimal that reads back as the same double, in a form that every YAML reader takes for a number.
std::string format_number(double value);
/// Plain where every YAML reader would read it back as the same text, else in double quotes. One line.
std::string format_text(std::string_view text);

}  // namespace llmtk::config
