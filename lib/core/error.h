#pragma once
// Errors for users (Error) and broken invariants (LLMTK_CHECK).

#include <exception>
#include <sstream>
#include <string>

namespace llmtk {

/// What a process exits with; the numbers are part of the command line's contract.
enum class Exit : int {
  ok = 0,
  runtime = 1,      ///< failure at run time, out of memory included
  usage = 2,        ///< usage, config, or a device that is not there
  data = 3,         ///< rows, corpora
  diverged = 4,     ///< NaN or infinity, several steps in a row
  file = 5,         ///< model files, other files, disk
  distributed = 6,  ///< ranks
  bound = 7,        ///< a bound that was asked for is missed
  stopped_saved = 75,  ///< stopped by a signal, checkpoint saved: may be queued again
};

/// An error a user can act on: what went wrong, where, what stood there, what was expected, how to mend it.
/// Every part but `what` may be empty. Thrown anywhere, caught once in each command's main.
class Error : public std::exception {
 public:
  struct Parts {
    std::string what;      ///< "unknown key 'learning_rte'"
    std::string where;     ///< "configs/x.yaml:12:3"
    std::string got;       ///< "'fast'"
    std::string expected;  ///< "a number"
    std::string hint;      ///< "did you mean 'learning_rate'?"
  };
  Error(Exit exit, Parts parts);
  /// One line: "where: what: got X, expected Y (hint)".
  const char* what() const noexcept override { return message_.c_str(); }
  Exit exit() const { return exit_; }
  const Parts& parts() const { return parts_; }

 private:
  Exit exit_;
  Parts parts_;
  std::string message_;
};

/// A broken invariant: a fault of the program, not of its user.
class CheckFailed : public std::exception {
 public:
  explicit CheckFailed(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& details);
template <class... Args>
std::string concat(const Args&... args) {
  if constexpr (sizeof...(args) == 0) {
    return {};
  } else {
    std::ostringstream out;
    (out << ... << args);
    return out.str();
  }
}
}  // namespace detail

}  // namespace llmtk

/// Always on. LLMTK_CHECK(x.dim() == 2, "x is ", x.sizes(), ", expected [T, H]").
#define LLMTK_CHECK(condition, ...)                                                                              \
  do {                                                                                                           \
    if (!(condition)) [[unlikely]]                                                                               \
      ::llmtk::detail::check_failed(__FILE__, __LINE__, #condition, ::llmtk::detail::concat(__VA_ARGS__));       \
  } while (false)
