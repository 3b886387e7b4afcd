#pragma once
// What the fuzz targets share. Each defines libFuzzer's LLVMFuzzerTestOneInput: any bytes at all must be read, or
// refused with an Error that names the file.

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/error.h"

namespace llmtk::test {

/// A file in memory, for readers that want a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : fd_(::memfd_create("fuzz", 0)) {
    if (fd_ < 0 || ::write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) std::abort();
  }
  ~MemoryFile() { ::close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

/// Runs `read`; an Error that says what is wrong with a file is as good as success, anything else that is thrown ends
/// the process.
template <class Read>
void read_or_refuse(const Read& read) {
  try {
    read();
  } catch (const Error& e) {
    const bool of_the_file = e.exit() == Exit::file || e.exit() == Exit::data;
    if (of_the_file && !e.parts().what.empty() && !e.parts().where.empty()) return;
    std::fprintf(stderr, "an error that does not name the file: %s\n", e.what());
    std::abort();
  }
}

}  // namespace llmtk::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
