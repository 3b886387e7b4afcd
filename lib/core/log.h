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

}  // namespace llmtk::log
