#include <cstdint>
#include <type_traits>

#include "core/error.h"
#include "io/gguf.h"

namespace llmtk::io {
namespace {

constexpr uint64_t kAlignment = 32;

/// The kinds of value, with the format's own numbers.
template <class T>
constexpr uint32_t kind_of() {
  if constexpr (std::is_same_v<T, uint32_t>) return 4;
  if constexpr (std::is_same_v<T, int32_t>) return 5;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, std::string>) return 8;
  if constexpr (std::is_same_v<T, uint64_t>) return 10;
  if constexpr (std::is_same_v<T, int64_t>) return 11;
  if constexpr (std::is_same_v<T, double>) return 12;
}
constexpr uint32_t kList = 9;

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

template <class T>
void put_element(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>)
    put_string(out, value);
  else
    put(out, value);
}

struct ValueWriter {
  std::string& out;
  template <class T>
  void operator()(const T& value) const {
    put(out, kind_of<T>());
    put_element(out, value);
  }
  template <class T>
  void operator()(const std::vector<T>& list) const {
    put(out, kList);
    put(out, kind_of<T>());
    put<uint64_t>(out, list.size());
    for (const T& value : list) put_element(out, value);
  }
};

uint64_t padding(uint64_t size) { return (kAlignment - size % kAlignment) % kAlignment; }

}  // namespace

GgufWriter::GgufWriter(const fs::path& path, const GgufMetadata& metadata, std::vector<GgufTensor> tensors)
    : file_(path), tensors_(std::move(tensors)) {
  std::string header = "GGUF";
  put<uint32_t>(header, 3);
  put<uint64_t>(header, tensors_.size());
  put<uint64_t>(header, metadata.size());
  for (const auto& [key, value] : metadata) {
    put_string(header, key);
    std::visit(ValueWriter{header}, value);
  }
  uint64_t at = 0;
  for (GgufTensor& tensor : tensors_) {
    const auto count = static_cast<uint64_t>(tensor.count());
    LLMTK_CHECK(count % block_elements(tensor.type) == 0, "tensor '", tensor.name, "' is not whole blocks");
    tensor.begin = at;
    tensor.end = at + count / block_elements(tensor.type) * block_bytes(tensor.type);
    at = tensor.end + padding(tensor.end);
    put_string(header, tensor.name);
    put<uint32_t>(header, static_cast<uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) put(header, static_cast<uint64_t>(*dim));
    put<uint32_t>(header, static_cast<uint32_t>(tensor.type));
    put<uint64_t>(header, tensor.begin);
  }
  header.append(padding(header.size()), '\0');
  file_.write(header);
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  LLMTK_CHECK(next_ < tensors_.size(), "more bytes written than announced");
  const GgufTensor& tensor = tensors_[next_];
  const uint64_t size = tensor.end - tensor.begin;
  written_ += bytes.size();
  LLMTK_CHECK(written_ <= size, "tensor '", tensor.name, "': ", written_, " bytes, ", size, " announced");
  file_.write(bytes);
  if (written_ < size) return;
  file_.write(std::string(padding(tensor.end), '\0'));
  written_ = 0;
  ++next_;
}

uint64_t GgufWriter::finish() {
  LLMTK_CHECK(next_ == tensors_.size(), next_, " tensors written, ", tensors_.size(), " announced");
  file_.commit();
  return file_.written();
}

}  // namespace llmtk::io
