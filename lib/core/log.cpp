#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "core/error.h"

namespace llmtk::log {
namespace {

spdlog::logger& logger() {
  static const auto instance = [] {
    auto made = spdlog::stderr_color_mt("llmtk");
    made->set_pattern("%H:%M:%S %^%l%$ %v");
    return made;
  }();
  return *instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::trace: return spdlog::level::trace;
    case Level::debug: return spdlog::level::debug;
    case Level::info: return spdlog::level::info;
    case Level::warn: return spdlog::level::warn;
    case Level::error: return spdlog::level::err;
    case Level::off: return spdlog::level::off;
  }
  return spdlog::level::info;
}

}  // namespace

Level parse_level(std::string_view name) {
  constexpr std::pair<std::string_view, Level> names[] = {{"trace", Level::trace}, {"debug", Level::debug},
                                                          {"info", Level::info},   {"warn", Level::warn},
                                                          {"error", Level::error}, {"off", Level::off}};
  for (const auto& [text, level] : names)
    if (text == name) return level;
  throw Error(Exit::usage, {.what = "unknown log level",
                            .got = "'" + std::string(name) + "'",
                            .expected = "trace, debug, info, warn, error or off"});
}

void set_level(Level level) { logger().set_level(to_spdlog(level)); }

void debug(std::string_view message) { logger().debug("{}", message); }
void info(std::string_view message) { logger().info("{}", message); }
void warn(std::string_view message) { logger().warn("{}", message); }
void error(std::string_view message) { logger().error("{}", message); }

}  // namespace llmtk::log
