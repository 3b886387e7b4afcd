#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/error.h"

namespace llmtk::train {
namespace {

std::string line_of(const Row& row) { return row.dump(-1, ' ', false, Row::error_handler_t::replace) + "\n"; }

}  // namespace

MetricsFile::MetricsFile(const std::filesystem::path& path, int64_t step, const std::function<void(const Row&)>& kept)
    : path_(path) {
  if (step > 0 && std::filesystem::exists(path)) {
    std::ifstream file(path, std::ios::binary);
    const auto check_readable = [&] {
      if (!file.is_open() || file.bad())  // not the same as a file without rows, which may be begun anew
        throw Error(Exit::file, {.what = std::string("cannot read: ") + std::strerror(errno), .where = path.string()});
    };
    check_readable();
    uint64_t at = 0;
    for (std::string line; std::getline(file, line);) {
      if (file.eof()) break;  // half a line
      at += line.size() + 1;
      const Row row = Row::parse(line, nullptr, false);
      const bool has_step = row.is_object() && row.contains("step") && row["step"].is_number_integer();
      if (has_step && row["step"].get<int64_t>() > step) break;
      if (!has_step && !(row.is_object() && row.contains("schema"))) continue;  // damaged; it goes unless rows follow
      kept_bytes_ = at;
      if (has_step && kept) kept(row);
    }
    check_readable();
  }
  fd_ = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (fd_ < 0)
    throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path.string()});
  if (kept_bytes_ == 0) cut();  // nothing of this run stands there
}

MetricsFile::~MetricsFile() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsFile::cut() {
  if (::ftruncate(fd_, static_cast<off_t>(kept_bytes_)) != 0)
    throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path_.string()});
  if (kept_bytes_ == 0) write(line_of({{"schema", kMetricsSchema}, {"version", kMetricsVersion}}));
  cut_ = true;
}

void MetricsFile::add(const Row& row) {
  if (!cut_) cut();
  write(line_of(row));
}

void MetricsFile::write(const std::string& line) {
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      throw Error(Exit::file,
                  {.what = std::string("cannot write: ") + std::strerror(errno),
                   .where = path_.string(),
                   .hint = errno == ENOSPC ? "the disk is full; the checkpoints that are there stay good" : ""});
    done += static_cast<size_t>(n);
  }
}

void MetricsFile::sync() {
  if (!cut_) cut();
  if (::fdatasync(fd_) != 0)
    throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path_.string()});
}

}  // namespace llmtk::train
