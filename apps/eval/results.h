#pragma once
// Results of `llmtk eval` that a stopped run goes on with.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/options.h"
#include "train/signals.h"

namespace llmtk {

/// What tells one run's results from another's: the command, and everything that its numbers come from - the checksums
/// of the model's config and weights, of the tokenizer's files and of the input; device, dtype and settings. Where
/// files lie does not count. Null where the options keep no results.
Json describe_run(const char* command, const EvalOptions& options, const std::filesystem::path& model_folder,
                  const std::vector<std::string>& inputs);

/// One result per item, in the order of the items, kept as JSON lines in a file whose first line describes the run. A
/// run that was stopped goes on behind the last whole line.
class Results {
 public:
  /// Opens `path` (empty: nothing is kept) and hands every result in it to `seen`. Throws Error(usage) where the file
  /// belongs to another run, Error(file) where it is broken.
  Results(const std::string& path, const Json& run, const std::function<void(const Json&)>& seen);
  ~Results();
  Results(const Results&) = delete;
  Results& operator=(const Results&) = delete;

  size_t done() const { return done_; }  ///< items that have a result
  void add(const Json& result);
  /// On the disk. Throws Error(file).
  void flush();
  /// Throws Error(stopped_saved) where results are kept and SIGTERM or SIGINT has come; `count` are wanted.
  void stop_if_asked(size_t count) const;

 private:
  void open(const Json& run, const std::function<void(const Json&)>& seen);
  void take_up(const Json& line, const std::function<void(const Json&)>& seen) const;
  std::string path_;
  std::optional<train::StopSignals> signals_;  // from before the file is there until the end
  std::FILE* file_ = nullptr;
  size_t done_ = 0;
};

/// Batches that are evaluated between two looks at the disk, sorted by length.
inline constexpr size_t kBlock = 16;
/// Runs `evaluate` over the items from `results.done()` to `count`, so many at a time that rows of like length meet
/// (`per_block`), and keeps what it has done after each block. evaluate(begin, end) adds end - begin results. Where
/// results are kept, SIGTERM and SIGINT end the work after the block, see stop_if_asked().
void in_blocks(Results& results, size_t count, size_t per_block, const char* label,
               const std::function<void(size_t, size_t)>& evaluate);

/// Aligned lines "name  value" on stdout, fractions with 6 digits behind the point.
void print_summary(const Json& summary);

}  // namespace llmtk
