#pragma once
// What the subcommands of `llmtk eval` read and keep: rows of JSON lines, and results that a stopped run goes on with.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "inspect/inspect.h"
#include "open_model.h"

namespace llmtk {

struct EvalOptions {
  ModelOptions model;
  std::string output;  ///< empty: results are not kept
  int64_t batch_size = 8;
  bool add_special_tokens = true;
};
/// Adds those of ModelOptions, --output, --batch-size and --add-special-tokens.
void add_eval_options(CLI::App& app, EvalOptions& options);

/// A JSON object and where it stands.
struct Row {
  Json json;
  std::string where;  ///< "file:line"
};
/// The rows of a file of JSON lines; blank lines are none. Throws Error(data) for a line that is not a JSON object, and
/// for a file without rows.
std::vector<Row> read_rows(const std::string& file);
/// A text of a row. Throws Error(data) that names the row.
std::string text_field_of(const Row& row, const std::string& key);

/// What tells one run's results from another's: the command, the model with the sizes and times of its weights, the
/// input with its checksum, and `settings`.
Json describe_run(const char* command, const EvalOptions& options, const std::filesystem::path& model_folder,
                  const std::vector<std::string>& inputs, Json settings);

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

 private:
  void open(const Json& run, const std::function<void(const Json&)>& seen);
  void take_up(const Json& line, const std::function<void(const Json&)>& seen) const;
  std::string path_;
  std::FILE* file_ = nullptr;
  size_t done_ = 0;
};

/// Batches that are evaluated between two looks at the disk, sorted by length.
inline constexpr size_t kBlock = 16;
/// Runs `evaluate` over the items from `results.done()` to `count`, so many at a time that rows of like length meet
/// (`per_block`), and keeps what it has done after each block. evaluate(begin, end) adds end - begin results.
void in_blocks(Results& results, size_t count, size_t per_block, const char* label,
               const std::function<void(size_t, size_t)>& evaluate);

/// Aligned lines "name  value" on stdout, fractions with 6 digits behind the point.
void print_summary(const Json& summary);

}  // namespace llmtk
