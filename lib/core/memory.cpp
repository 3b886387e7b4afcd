#include "core/memory.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace llmtk {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

uint64_t from_meminfo() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  uint64_t kilobytes = 0, total = kUnknown;
  while (file >> key >> kilobytes && std::getline(file, unit))
    if (key == "MemAvailable:" || key == "SwapFree:") total = (total == kUnknown ? 0 : total) + kilobytes * 1024;
  return total;
}

/// The number that a file begins with; kUnknown for "max" and where there is none.
uint64_t number_in(const fs::path& path) {
  uint64_t number = 0;
  return std::ifstream(path) >> number ? number : kUnknown;
}

/// The value of `key` in a file of lines "key value".
uint64_t entry_in(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string name;
  uint64_t value = 0;
  while (file >> name >> value)
    if (name == key) return value;
  return 0;
}

/// The least room in this process's control group (version 2) and those above it.
uint64_t from_control_groups() {
  std::ifstream file("/proc/self/cgroup");
  uint64_t least = kUnknown;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("0::/")) continue;
    const fs::path root = "/sys/fs/cgroup";
    for (fs::path group = root / line.substr(4); ; group = group.parent_path()) {
      const uint64_t limit = number_in(group / "memory.max"), used = number_in(group / "memory.current");
      // Cached files are given back when memory runs short.
      const uint64_t held = used == kUnknown ? 0 : used - std::min(used, entry_in(group / "memory.stat", "inactive_file"));
      if (limit != kUnknown) least = std::min(least, limit - std::min(limit, held));
      if (group == root || !group.has_relative_path()) break;
    }
  }
  return least;
}

}  // namespace

uint64_t available_memory_bytes() { return std::min(from_meminfo(), from_control_groups()); }

}  // namespace llmtk
