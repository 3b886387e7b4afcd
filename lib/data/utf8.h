#pragma once
// Text that is not quite UTF-8, mended. (core/utf8.h finds it.)

#include <string>
#include <string_view>

namespace llmtk::data {

/// Every maximal ill-formed part becomes one U+FFFD, as Python's errors="replace" has it.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace llmtk::data
