#pragma once
// Catch2, and the project's way to skip a case.

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "core/error.h"

namespace llmtk::test {

/// Says aloud that a case did not run; the program exits with 77 (ctest: "Skipped") when nothing else ran either.
void report_skip(const std::string& reason);

/// A new empty folder, removed with everything in it at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Whether `message` holds `part`; where a CHECK of it fails, the message is shown.
inline bool says(const std::string& message, const std::string& part) {
  UNSCOPED_INFO(message);
  return message.find(part) != std::string::npos;
}

/// The message of the Error that `body` throws, and its exit code if asked for; empty when it throws none.
template <class Body>
std::string error_of(Body&& body, Exit* exit = nullptr) {
  try {
    body();
  } catch (const Error& error) {
    if (exit) *exit = error.exit();
    return error.what();
  }
  return "";
}

}  // namespace llmtk::test

/// In a TEST_CASE: LLMTK_SKIP("no GPU here");
#define LLMTK_SKIP(reason)              \
  do {                                  \
    ::llmtk::test::report_skip(reason); \
    SUCCEED("skipped");                 \
    return;                             \
  } while (false)
