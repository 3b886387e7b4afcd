#pragma once
// Regular expressions as tokenizer.json has them: PCRE2 with Unicode's classes.

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llmtk::text {

/// Immutable: one object serves all threads.
class Regex {
 public:
  /// `where` names the file and `what` the part of it in errors: Error(file) for a pattern that does not compile.
  Regex(std::string pattern, std::string what, std::string where);

  /// Begin and end of the matches that are not empty, in order. Throws Error(file) where the pattern takes too long.
  std::vector<std::pair<size_t, size_t>> matches(std::string_view text) const;

 private:
  struct Free {
    void operator()(void* code) const;
  };
  std::string pattern_, what_, where_;
  std::unique_ptr<void, Free> code_;
};

}  // namespace llmtk::text
