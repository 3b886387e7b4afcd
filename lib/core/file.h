#pragma once
// Files: memory maps, whole reads, and writes that are all there or not there at all.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace llmtk {

namespace fs = std::filesystem;

/// A file mapped read-only. Throws Error(file) naming the path when it cannot be opened.
class MappedFile {
 public:
  explicit MappedFile(const fs::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }
  std::string_view text() const { return {static_cast<const char*>(data_), size_}; }
  size_t size() const { return size_; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  void* data_ = nullptr;
  size_t size_ = 0;
};

/// The whole file. Throws Error(file).
std::string read_file(const fs::path& path);

/// Writes beside the target, fsyncs, renames over it, fsyncs the folder: after a crash the old file or the new one stands
/// there, never a part. Throws Error(file) on a full disk or any failed write, and leaves the target as it was.
class AtomicFile {
 public:
  explicit AtomicFile(fs::path path);
  ~AtomicFile();  // without commit() the temporary file is removed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  void commit();
  uint64_t written() const { return written_; }

 private:
  void flush();
  fs::path path_, temporary_;
  int fd_ = -1;
  uint64_t written_ = 0;
  std::string buffer_;
};

/// AtomicFile with one write.
void write_file_atomic(const fs::path& path, std::string_view text);

/// fsync of a folder: makes renames in it durable. Throws Error(file).
void sync_folder(const fs::path& folder);

/// A streaming 64-bit checksum at memory speed, against bit rot and torn writes (not against an attacker). Stable across
/// versions and machines: manifests store it.
class Checksum {
 public:
  void update(std::span<const std::byte> bytes);
  uint64_t digest() const;
  std::string hex() const;

 private:
  uint64_t lanes_[4] = {0x9E3779B97F4A7C15u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u, 0x27D4EB2F165667C5u};
  uint64_t total_ = 0;
  unsigned char pending_[32] = {};
  size_t pending_size_ = 0;
};
std::string checksum_file(const fs::path& path);

/// Bytes free for this user on the file system that holds `path` (or its nearest existing parent).
uint64_t free_disk_bytes(fs::path path);

}  // namespace llmtk
