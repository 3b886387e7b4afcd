#pragma once
// Is it UTF-8, and if not, where not.

#include <cstddef>
#include <string>
#include <string_view>

namespace llmtk::data {

/// Offset of the first byte that is not part of well-formed UTF-8 (RFC 3629: no surrogates, nothing overlong, nothing
/// above U+10FFFF); npos when all is well.
size_t find_invalid_utf8(std::string_view text);

/// Every maximal ill-formed part becomes one U+FFFD, as Python's errors="replace" has it.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace llmtk::data
