#pragma once
// UTF-8: validity, code points, and how wide a text is on a terminal.

#include <cstddef>
#include <string>
#include <string_view>

namespace llmtk {

/// The code point at `position` of `text`, which is moved past it. An invalid byte gives -1 and is passed alone.
/// Overlong forms, surrogates and values above U+10FFFF are invalid.
int32_t next_code_point(std::string_view text, size_t& position);

/// The position of the first byte that is not part of valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

size_t count_code_points(std::string_view text);

/// Columns on a terminal: 2 for Chinese and other wide characters and emoji, 0 for combining marks and controls.
int display_width(std::string_view text);

/// The longest start of `text` of whole characters that is at most `width` columns wide.
std::string_view cut_to_width(std::string_view text, int width);

/// `text` without what moves a terminal's cursor or changes its colours: control characters other than line feed and
/// tab, and bytes that are no UTF-8, become "\\x1b" and the like.
std::string printable(std::string_view text);

/// A text as people read it in one line: printable(), with line ends and tabs escaped too, as in C.
std::string one_line(std::string_view text);

/// A name that a file gives, for a message: in single quotes, in one line, cut to 80 columns.
std::string in_quotes(std::string_view name);

}  // namespace llmtk
