#include "core/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <mutex>
#include <string>

#include "core/error.h"
#include "core/utf8.h"

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

std::mutex status_mutex;  // also keeps messages and the status line apart
std::string status;

int terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

void draw_status() {
  if (status.empty()) return;
  // A line as wide as the terminal would make some terminals wrap.
  const std::string_view shown = cut_to_width(status, terminal_width() - 1);
  std::fprintf(stderr, "\r%.*s\x1b[K", static_cast<int>(shown.size()), shown.data());
  std::fflush(stderr);
}

void clear_status() {
  if (status.empty()) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void print(spdlog::level::level_enum level, std::string_view message) {
  if (!logger().should_log(level)) return;
  const std::scoped_lock lock(status_mutex);
  clear_status();
  logger().log(level, "{}", message);
  draw_status();
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::trace:
      return spdlog::level::trace;
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
    case Level::off:
      return spdlog::level::off;
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

void debug(std::string_view message) { print(spdlog::level::debug, message); }
void info(std::string_view message) { print(spdlog::level::info, message); }
void warn(std::string_view message) { print(spdlog::level::warn, message); }
void error(std::string_view message) { print(spdlog::level::err, message); }

bool on_terminal() {
  const char* terminal = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) == 1 && !(terminal && std::string_view(terminal) == "dumb");
}

void set_status(std::string_view line) {
  if (!logger().should_log(spdlog::level::info)) return;
  const std::scoped_lock lock(status_mutex);
  if (line.empty()) clear_status();
  status = line;
  draw_status();
}

void keep_status() {
  const std::scoped_lock lock(status_mutex);
  if (status.empty()) return;
  std::fputc('\n', stderr);
  std::fflush(stderr);
  status.clear();
}

}  // namespace llmtk::log
