#pragma once
// metrics.jsonl: what a run reports, one JSON object a line. docs/metrics.md describes the schema.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

namespace llmtk::train {

inline constexpr const char* kMetricsSchema = "llmtk-metrics";
inline constexpr int kMetricsVersion = 1;

using Row = nlohmann::ordered_json;

/// Appends rows; a row is in the file, whole, when add() returns. Numbers that JSON has no word for become null.
class MetricsFile {
 public:
  /// Keeps the rows up to `step` that stand there (a resumed run repeats the rest, and a killed one may have left half a
  /// line) and goes on behind them. Throws Error(file).
  MetricsFile(const std::filesystem::path& path, int64_t step);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  void add(Row row);
  /// What was added outlives a crash of the machine.
  void sync();
  /// The kept ones and those added, without the header.
  const std::vector<Row>& rows() const { return rows_; }

 private:
  void write(const Row& row);
  std::filesystem::path path_;
  std::vector<Row> rows_;
  int fd_ = -1;
};

}  // namespace llmtk::train
