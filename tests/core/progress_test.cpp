#include "core/progress.h"

#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>

#include "core/log.h"
#include "stderr_of.h"
#include "test.h"

using namespace llmtk;

namespace {

/// What `body` writes to a terminal of `columns` columns.
template <class Body>
std::string on_terminal(unsigned short columns, Body body) {
  winsize size{.ws_row = 24, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
  REQUIRE(child >= 0);
  if (child == 0) {
    ::setenv("TERM", "xterm", 1);
    body();
    ::_exit(0);
  }
  std::string text;
  char chunk[4096];
  for (ssize_t n; (n = ::read(terminal, chunk, sizeof chunk)) > 0;) text.append(chunk, static_cast<size_t>(n));
  int status = 0;
  ::waitpid(child, &status, 0);
  ::close(terminal);
  CHECK(status == 0);
  return text;
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("the time left follows from the speed since the first update") {
  double now = 100;
  Progress progress(100, {.first = 20, .clock = [&] { return now; }});
  progress.update(20, {}, false);
  now += 30;  // ten steps in 30 s, 70 to go
  CHECK(progress.line(30, {{"loss", "3.2"}, {"", "1.2k tok/s"}}) == "step 30/100  loss 3.2  1.2k tok/s  ETA 3:30");
  CHECK(progress.line(100, {}) == "step 100/100");
}

TEST_CASE("on a terminal the line is redrawn, cut by columns, and log lines stand above it") {
  const std::string text = on_terminal(20, [] {
    double now = 0;
    Progress progress(9, {.label = "步", .clock = [&] { return now += 1; }});
    progress.update(1, {{"损失", "3.14159265"}}, false);
    log::info("hello");
    progress.update(9, {{"损失", "2"}}, false);
  });
  INFO(text);
  CHECK(text.starts_with("\r步 1/9  损失 3.1415\x1b[K"));   // 19 columns
  CHECK(text.find("\x1b[K\r\x1b[K") != std::string::npos);  // cleared for the log line
  CHECK(text.find("hello\r\n\r步 1/9") != std::string::npos);
  CHECK(text.ends_with("\r步 9/9  损失 2\x1b[K\r\n"));
}

TEST_CASE("a terminal is not redrawn too often") {
  const std::string text = on_terminal(80, [] {
    double now = 0;
    Progress progress(1000, {.clock = [&] { return now += 0.001; }});
    for (int step = 1; step <= 1000; ++step) progress.update(step, {}, true);
  });
  CHECK(occurrences(text, "step ") < 60);
  CHECK(text.find("step 1000/1000") != std::string::npos);
}

TEST_CASE("elsewhere a line is printed at logging steps only, rate-limited, the last always") {
  const std::string text = test::stderr_of([] {
    double now = 0;
    Progress progress(100, {.clock = [&] { return now += 0.05; }});
    for (int step = 1; step <= 100; ++step) progress.update(step, {{"loss", "1"}}, step % 10 == 0);
  });
  INFO(text);
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find("\x1b") == std::string::npos);
  CHECK(text.find("step 1/100") == std::string::npos);
  CHECK(text.find("step 10/100  loss 1") != std::string::npos);
  CHECK(text.find("step 20/100") == std::string::npos);  // half a second later
  CHECK(occurrences(text, "step 100/100") == 1);
}

TEST_CASE("durations and counts") {
  CHECK(format_duration(44.6) == "45s");
  CHECK(format_duration(725) == "12:05");
  CHECK(format_duration(11265) == "3:07:45");
  CHECK(format_duration(2 * 86400 + 3 * 3600 + 600) == "2d 03:10");
  CHECK(format_duration(-1) == "?");
  CHECK(format_duration(std::nan("")) == "?");
  CHECK(format_count(950) == "950");
  CHECK(format_count(999.7) == "1.00k");
  CHECK(format_count(12345) == "12.3k");
  CHECK(format_count(1.24e6) == "1.24M");
  CHECK(format_count(0) == "0");
}
