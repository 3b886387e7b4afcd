#pragma once
// Logging to stderr. spdlog stays out of this header: files that also see LibTorch meet another fmt there.

#include <string>
#include <string_view>

namespace llmtk::log {

enum class Level { trace, debug, info, warn, error, off };

/// "trace" ... "off"; throws Error(usage) with the choices otherwise.
Level parse_level(std::string_view name);
void set_level(Level level);

void debug(std::string_view message);
void info(std::string_view message);
void warn(std::string_view message);
void error(std::string_view message);

/// Whether stderr is a terminal that can move its cursor.
bool on_terminal();
/// A line kept at the bottom of the terminal, cut to its width; messages are printed above it. Empty: none. Only for
/// on_terminal().
void set_status(std::string_view line);
/// Leaves the status where it stands and starts a new line below it.
void keep_status();

}  // namespace llmtk::log
