#pragma once
// What a piece of code tells its user.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>

#include "test.h"

namespace llmtk::test {

/// What `body`, in a process of its own, writes to a pipe in place of stderr.
template <class Body>
std::string stderr_of(Body body) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    try {
      body();
    } catch (const std::exception& error) {  // it would go on with the tests in this process
      ::dprintf(STDERR_FILENO, "exception: %s\n", error.what());
    }
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string text;
  char chunk[4096];
  for (ssize_t n; (n = ::read(ends[0], chunk, sizeof chunk)) > 0;) text.append(chunk, static_cast<size_t>(n));
  ::waitpid(child, nullptr, 0);
  ::close(ends[0]);
  return text;
}

}  // namespace llmtk::test
