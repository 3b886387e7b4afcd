#pragma once
// metrics.jsonl: what a run reports, one JSON object a line. docs/metrics.md describes the schema.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace llmtk::train {

inline constexpr const char* kMetricsSchema = "llmtk-metrics";
inline constexpr int kMetricsVersion = 1;

using Row = nlohmann::ordered_json;

/// Appends rows; a row is in the file, whole, when add() returns. Numbers that JSON has no word for become null.
class MetricsFile {
 public:
  /// Goes on behind the rows up to `step` that stand there, and shows each of them to `kept`. What follows them (a
  /// resumed run repeats it, and a killed one may have left half a line) is cut off with the first row or sync(): a run
  /// that comes to nothing takes nothing away. Throws Error(file).
  MetricsFile(const std::filesystem::path& path, int64_t step, const std::function<void(const Row&)>& kept = {});
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;

  void add(const Row& row);
  /// The file holds this run's rows alone, and they outlive a crash of the machine.
  void sync();

 private:
  void write(const std::string& line);
  void cut();
  std::filesystem::path path_;
  uint64_t kept_bytes_ = 0;
  bool cut_ = false;  // what follows the kept rows is gone
  int fd_ = -1;
};

}  // namespace llmtk::train
