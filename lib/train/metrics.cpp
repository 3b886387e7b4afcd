#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"
#include "core/file.h"

namespace llmtk::train {
namespace {

std::string line_of(const Row& row) { return row.dump(-1, ' ', false, Row::error_handler_t::replace) + "\n"; }

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t step) : path_(path) {
  std::string kept = line_of({{"schema", kMetricsSchema}, {"version", kMetricsVersion}});
  if (step > 0 && std::filesystem::exists(path)) {
    const std::string text = read_file(path);
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find('\n', at);
      if (end == text.npos) break;  // half a line
      Row row = Row::parse(text.begin() + static_cast<ptrdiff_t>(at), text.begin() + static_cast<ptrdiff_t>(end), nullptr,
                           false);
      at = end + 1;
      if (!row.is_object() || !row.contains("step") || !row["step"].is_number_integer()) continue;
      if (row["step"].get<int64_t>() > step) continue;
      kept += line_of(row);
      rows_.push_back(std::move(row));
    }
  }
  write_file_atomic(path, kept);
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd_ < 0)
    throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path.string()});
}

MetricsFile::~MetricsFile() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsFile::add(Row row) {
  write(row);
  rows_.push_back(std::move(row));
}

void MetricsFile::write(const Row& row) {
  const std::string line = line_of(row);
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno),
                               .where = path_.string(),
                               .hint = errno == ENOSPC ? "the disk is full; the checkpoints that are there stay good" : ""});
    done += static_cast<size_t>(n);
  }
}

void MetricsFile::sync() {
  if (::fdatasync(fd_) != 0)
    throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path_.string()});
}

}  // namespace llmtk::train
