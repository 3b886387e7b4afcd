#pragma once
// One line typed in a terminal.

#include <optional>
#include <string>
#include <string_view>

namespace llmtk {

/// Reads a line from the terminal behind stdin and shows it on stdout. The kernel's own line editing takes every
/// character for one column wide, so that deleting a Chinese one leaves half of it on the screen; this knows widths.
/// Backspace deletes a character with its marks, Ctrl-W a word, Ctrl-U all. nullopt: Ctrl-D on an empty line. Ctrl-C
/// empties the line, and on an empty one sets `interrupted` and gives nullopt.
std::optional<std::string> read_terminal_line(std::string_view prompt, bool& interrupted);

/// Whether both ends of a conversation are a terminal.
bool in_terminal();

}  // namespace llmtk
