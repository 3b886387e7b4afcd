#pragma once
// Event files as TensorBoard reads them: protobuf messages (tensorflow/core/util/event.proto) in TFRecord frames.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace llmtk::train {

/// How the names of these files end, to tell them from other programs'.
inline constexpr const char* kEventFileEnd = ".llmtk";

class EventFile {
 public:
  /// A new file in `folder`, named by time, host and process. Throws Error(file).
  explicit EventFile(const std::filesystem::path& folder);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  void scalar(const std::string& tag, int64_t step, double value, double unix_seconds);
  void text(const std::string& tag, int64_t step, std::string_view markdown, double unix_seconds);
  const std::filesystem::path& path() const { return path_; }

 private:
  void write(const std::string& event);
  std::filesystem::path path_;
  int fd_ = -1;
};

/// CRC-32C (Castagnoli), as TFRecord has it.
uint32_t crc32c(std::string_view bytes);

}  // namespace llmtk::train
