#pragma once
// Strings of code points, as Python's str has them, over UTF-8.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llmtk::text::jinja {

/// str.isspace() of one character.
bool is_space(int32_t c);
bool is_alpha(int32_t c);    ///< str.isalpha()
bool is_decimal(int32_t c);  ///< str.isdecimal()
bool is_digit(int32_t c);    ///< str.isdigit(): superscripts too
bool is_alphanumeric(int32_t c);
bool is_upper(int32_t c);
bool is_lower(int32_t c);
bool is_title(int32_t c);
bool is_printable(int32_t c);  ///< what repr() does not escape

void append_code_point(int32_t c, std::string& out);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_title(std::string_view text);    ///< str.title(): a word begins after anything that has no case
std::string capitalize(std::string_view text);  ///< str.capitalize()
std::string swap_case(std::string_view text);

/// Number of code points; whether each is one byte.
size_t count(std::string_view text);
inline bool one_byte_each(std::string_view text, size_t count) { return text.size() == count; }
/// The byte at which code point `index` begins (the text's size at its end or beyond).
size_t byte_offset(std::string_view text, size_t index);
/// Code points as texts of their own.
std::vector<std::string_view> characters(std::string_view text);

/// Without the characters of `chars` at its ends; white space where `chars` is null.
std::string_view strip(std::string_view text, bool left, bool right, const std::string_view* chars = nullptr);
/// Lines, ended by all that Python's splitlines() knows.
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);
/// Words between white space; at most `most` cuts, from the right where `from_right`.
std::vector<std::string_view> split_words(std::string_view text, int64_t most, bool from_right);
/// Parts between separators (not empty).
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t most,
                                       bool from_right);
/// `most` < 0: all.
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t most);

}  // namespace llmtk::text::jinja
