#include "quant/partial_weights.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"

namespace llmtk::quant {
namespace {

constexpr const char* kProgressFile = "progress.jsonl";

std::span<const std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<const std::byte*>(t.const_data_ptr()), static_cast<size_t>(t.nbytes())};
}

[[noreturn]] void cannot_write(const fs::path& path) {
  throw Error(Exit::file, {.what = std::string("cannot write: ") + std::strerror(errno), .where = path.string()});
}

/// A file that is written at any place.
class OpenFile {
 public:
  explicit OpenFile(const fs::path& path, int flags = 0) : path_(path) {
    fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | flags, 0644);
    if (fd_ < 0) cannot_write(path_);
  }
  ~OpenFile() { ::close(fd_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  void resize(uint64_t size) {
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) cannot_write(path_);
  }
  void write(uint64_t at, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) cannot_write(path_);
      at += static_cast<uint64_t>(n);
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  void write(uint64_t at, std::string_view text) { write(at, std::as_bytes(std::span(text))); }
  void sync() {
    if (::fsync(fd_) != 0) cannot_write(path_);
  }

 private:
  fs::path path_;
  int fd_;
};

std::string line_of(const io::Json& json) { return json.dump() + "\n"; }

uint64_t begin_of(const WeightPiece& piece) { return piece.tensors.front().begin; }
uint64_t end_of(const WeightPiece& piece) { return piece.tensors.back().end; }

}  // namespace

PartialWeights::PartialWeights(fs::path folder, std::vector<WeightPiece> pieces, const io::Json& settings)
    : folder_(std::move(folder)), pieces_(std::move(pieces)) {
  std::vector<io::TensorInfo> all;
  for (const WeightPiece& piece : pieces_) all.insert(all.end(), piece.tensors.begin(), piece.tensors.end());
  header_ = io::safetensors_header(all);
  size_t next = 0;
  for (size_t i = 0; i < pieces_.size(); ++i) {
    for (io::TensorInfo& tensor : pieces_[i].tensors) tensor = all[next++];
    index_[pieces_[i].name] = i;
  }
  fs::create_directories(folder_);
  Checksum checksum;
  checksum.update(std::as_bytes(std::span(header_)));
  const io::Json first_line = {{"settings", settings}, {"header", checksum.hex()}};
  resume(first_line);
  if (notes_.empty()) begin(first_line);
}

void PartialWeights::begin(const io::Json& first_line) {
  const uint64_t size = header_.size() + (pieces_.empty() ? 0 : end_of(pieces_.back()));
  if (const uint64_t room = free_disk_bytes(folder_); room < size)
    throw Error(Exit::file, {.what = "too little room on the disk for the quantized weights",
                             .where = folder_.string(),
                             .got = std::to_string(room >> 20) + " MiB",
                             .expected = std::to_string(size >> 20) + " MiB"});
  if (!fs::is_empty(folder_) && !fs::exists(folder_ / kProgressFile))
    throw Error(Exit::usage, {.what = "the folder for what is not whole yet holds something else",
                              .where = folder_.string(),
                              .hint = "move it away"});
  for (const auto& entry : fs::directory_iterator(folder_)) fs::remove_all(entry.path());
  OpenFile file(folder_ / io::kWeightsFile);
  file.write(0, header_);
  file.resize(size);
  OpenFile(folder_ / kProgressFile, O_TRUNC).write(0, line_of(first_line));
}

void PartialWeights::resume(const io::Json& first_line) {
  if (!fs::exists(folder_ / kProgressFile) || !fs::exists(folder_ / io::kWeightsFile)) return;
  std::istringstream lines(read_file(folder_ / kProgressFile));
  std::string line;
  std::getline(lines, line);
  if (line + "\n" != line_of(first_line)) {
    log::info(folder_.string() + " is of another model or other settings: begun anew");
    return;
  }
  std::string whole = line + "\n";
  const MappedFile file(folder_ / io::kWeightsFile);
  while (std::getline(lines, line) && !lines.eof()) {
    const auto json = io::Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !index_.contains(json.value("piece", ""))) break;
    const WeightPiece& one = piece(json["piece"]);
    if (header_.size() + end_of(one) > file.size()) break;
    Checksum checksum;
    checksum.update(file.bytes().subspan(header_.size() + begin_of(one), end_of(one) - begin_of(one)));
    if (json.value("checksum", "") != checksum.hex()) break;
    notes_[one.name] = json.value("note", io::Json());
    whole += line + "\n";
  }
  if (notes_.empty()) return;
  OpenFile(folder_ / kProgressFile, O_TRUNC).write(0, whole);  // without what was cut short
  log::info("going on with " + folder_.string() + ": " + std::to_string(notes_.size()) + " of " +
            std::to_string(pieces_.size()) + " tensors are there");
}

void PartialWeights::write(const std::string& name, const io::NamedTensors& tensors, const io::Json& note) {
  const auto& infos = piece(name).tensors;
  LLMTK_CHECK(!has(name) && tensors.size() == infos.size(), name, ": ", tensors.size(), " tensors");
  Checksum checksum;
  OpenFile file(folder_ / io::kWeightsFile);
  for (size_t i = 0; i < infos.size(); ++i) {
    const at::Tensor whole = tensors[i].second.detach().to(c10::kCPU).contiguous();
    LLMTK_CHECK(tensors[i].first == infos[i].name && whole.sizes() == infos[i].shape &&
                    io::to_dtype(whole.scalar_type()) == infos[i].dtype,
                infos[i].name, " is ", tensors[i].first, " ", whole.scalar_type(), " ", whole.sizes());
    checksum.update(bytes_of(whole));
    file.write(header_.size() + infos[i].begin, bytes_of(whole));
  }
  io::Json line = {{"piece", name}, {"checksum", checksum.hex()}};
  if (!note.is_null()) line["note"] = note;
  OpenFile(folder_ / kProgressFile).write(fs::file_size(folder_ / kProgressFile), line_of(line));
  notes_[name] = note;
}

std::map<std::string, at::Tensor> PartialWeights::read(const std::string& name) const {
  LLMTK_CHECK(has(name), name, " is not there");
  std::ifstream file(folder_ / io::kWeightsFile, std::ios::binary);
  std::map<std::string, at::Tensor> tensors;
  for (const io::TensorInfo& info : piece(name).tensors) {
    at::Tensor t = at::empty(info.shape, io::to_scalar_type(info.dtype));
    file.seekg(static_cast<std::streamoff>(header_.size() + info.begin));
    if (!file.read(static_cast<char*>(t.mutable_data_ptr()), static_cast<std::streamsize>(t.nbytes())))
      throw Error(Exit::file,
                  {.what = "the file is shorter than it was", .where = (folder_ / io::kWeightsFile).string()});
    tensors[info.name] = t;
  }
  return tensors;
}

void PartialWeights::finish() {
  LLMTK_CHECK(notes_.size() == pieces_.size(), notes_.size(), " of ", pieces_.size(), " pieces are written");
  OpenFile(folder_ / io::kWeightsFile).sync();
  fs::remove(folder_ / kProgressFile);
}

}  // namespace llmtk::quant
