#include "embed_output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/file.h"
#include "io/safetensors.h"

namespace llmtk {
namespace {

/// The shortest digits that give the same float again.
void append(std::string& text, float number) {
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
  text.append(digits, end);
}

std::string json_line(const Embedded& embedded) {
  std::string line = "{\"index\": " + std::to_string(embedded.index) +
                     ", \"text\": " + nlohmann::json(embedded.text).dump() +
                     ", \"tokens\": " + std::to_string(embedded.tokens) +
                     ", \"truncated\": " + (embedded.truncated ? "true" : "false") + ", \"embedding\": [";
  const float* numbers = embedded.embedding.const_data_ptr<float>();
  for (int64_t i = 0; i < embedded.embedding.numel(); ++i) {
    if (i > 0) line += ", ";
    append(line, numbers[i]);
  }
  return line + "]}\n";
}

class StandardOutput final : public EmbedOutput {
 public:
  void write(const Embedded& embedded) override {
    if (!(std::cout << json_line(embedded)))
      throw Error(Exit::file, {.what = "cannot write the output", .where = "stdout"});
  }
  void finish() override { std::cout.flush(); }
};

class JsonLinesFile final : public EmbedOutput {
 public:
  explicit JsonLinesFile(const std::string& path) : file_(path) {}
  void write(const Embedded& embedded) override { file_.write(json_line(embedded)); }
  void finish() override { file_.commit(); }

 private:
  AtomicFile file_;
};

/// Bytes on disk without a name: they are gone with the process, however it ends.
class Spool {
 public:
  explicit Spool(const fs::path& folder) : where_(folder.string()) {
    std::string name = (folder / ".embeddings-XXXXXX").string();
    fd_ = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd_ < 0 || ::unlink(name.c_str()) != 0) fail("cannot make a temporary file here");
  }
  ~Spool() { ::close(fd_); }
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  void write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) fail("cannot write a temporary file here");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
  }
  /// All of it, in pieces.
  void read(const std::function<void(std::span<const std::byte>)>& take) {
    if (::lseek(fd_, 0, SEEK_SET) != 0) fail("cannot read a temporary file back");
    std::vector<std::byte> piece(1u << 20);
    for (;;) {
      const ssize_t n = ::read(fd_, piece.data(), piece.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail("cannot read a temporary file back");
      if (n == 0) return;
      take(std::span(piece).first(static_cast<size_t>(n)));
    }
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(Exit::file, {.what = what + ": " + std::strerror(errno), .where = where_});
  }
  std::string where_;
  int fd_ = -1;
};

class SafetensorsOutput final : public EmbedOutput {
 public:
  explicit SafetensorsOutput(const fs::path& path)
      : path_(path), spool_(path.has_parent_path() ? path.parent_path() : fs::path(".")) {}

  void write(const Embedded& embedded) override {
    width_ = embedded.embedding.numel();
    ++rows_;
    spool_.write(std::as_bytes(std::span(embedded.embedding.const_data_ptr<float>(), static_cast<size_t>(width_))));
  }
  void finish() override {
    io::SafetensorsWriter writer(path_, {{.name = "embeddings", .dtype = io::DType::f32, .shape = {rows_, width_}}});
    spool_.read([&](std::span<const std::byte> bytes) { writer.write(bytes); });
    writer.finish();
  }

 private:
  fs::path path_;
  Spool spool_;
  int64_t rows_ = 0, width_ = 0;
};

}  // namespace

std::unique_ptr<EmbedOutput> open_output(const std::string& path) {
  if (path.empty()) return std::make_unique<StandardOutput>();
  if (path.ends_with(".jsonl")) return std::make_unique<JsonLinesFile>(path);
  if (path.ends_with(".safetensors")) return std::make_unique<SafetensorsOutput>(path);
  throw Error(Exit::usage, {.what = "--output writes JSON lines or safetensors",
                            .got = path,
                            .expected = "a name that ends in .jsonl or .safetensors"});
}

}  // namespace llmtk
