#include "data/checksums.h"

#include <sys/stat.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace llmtk::data {
namespace {

using nlohmann::ordered_json;

/// What changes when a file does; empty when it cannot be looked at, or has changed just now.
ordered_json describe(const fs::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0) return {};
  constexpr int kSettled = 2;  // seconds; file systems may count in such steps
  const time_t now = std::time(nullptr);
  if (info.st_mtim.tv_sec > now - kSettled || info.st_ctim.tv_sec > now - kSettled) return {};
  const auto nanoseconds = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
  return {{"path", fs::absolute(file).string()},
          {"device", info.st_dev},
          {"inode", info.st_ino},
          {"size", info.st_size},
          {"modified", nanoseconds(info.st_mtim)},
          {"changed", nanoseconds(info.st_ctim)}};
}

}  // namespace

std::string remembered_checksum(const fs::path& file, const fs::path& cache_folder) {
  ordered_json entry = describe(file);
  if (entry.empty()) return checksum_file(file);
  Checksum name;
  const std::string path = fs::absolute(file).string();
  name.update(std::as_bytes(std::span(path)));
  const fs::path remembered = cache_folder / "checksums" / (name.hex() + ".json");
  if (fs::exists(remembered)) {
    try {
      const auto known = ordered_json::parse(read_file(remembered));
      if (known.at("file") == entry) return known.at("checksum").get<std::string>();
    } catch (const std::exception&) {  // half a file, or another version's: it is made anew
    }
  }
  const std::string checksum = checksum_file(file);
  if (describe(file) != entry) return checksum;  // it changed while it was read
  try {
    fs::create_directories(remembered.parent_path());
    write_file_atomic(remembered, ordered_json{{"file", entry}, {"checksum", checksum}}.dump() + "\n");
  } catch (const std::exception&) {  // a cache that cannot be written costs time, nothing else
  }
  return checksum;
}

}  // namespace llmtk::data
