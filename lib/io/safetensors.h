#pragma once
// The safetensors format: 8 bytes with the header's length (little-endian), a JSON header, the tensors' bytes.
// https://huggingface.co/docs/safetensors: offsets count from the end of the header; no gaps, no overlaps.

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"

namespace llmtk::io {

/// Element types, with the format's own names.
enum class DType { boolean, u8, i8, f8_e4m3, f8_e5m2, u16, i16, f16, bf16, u32, i32, f32, u64, i64, f64 };
std::string_view dtype_tag(DType dtype);  ///< "BF16"
size_t dtype_size(DType dtype);           ///< bytes

/// One tensor of a file: where its bytes lie.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  ///< bytes, counted from the end of the header

  int64_t count() const;  ///< elements
};

/// A safetensors file, mapped; nothing is read but the header until bytes are touched.
class SafetensorsFile {
 public:
  /// Throws Error(file) naming the file, and the tensor where one is at fault, for anything but a whole, valid file.
  explicit SafetensorsFile(const fs::path& path);

  /// In the order in which they lie in the file.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* find(const std::string& name) const;
  std::span<const std::byte> bytes(const TensorInfo& tensor) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const fs::path& path() const { return file_.path(); }

 private:
  MappedFile file_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t> index_;
  std::map<std::string, std::string> metadata_;
  uint64_t data_start_ = 0;
};

/// What stands before the tensors' bytes: the header with its length. Sets the infos' begin and end.
std::string safetensors_header(std::vector<TensorInfo>& tensors,
                               const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

/// Writes a safetensors file piece by piece: the header first, then each tensor's bytes in the order announced. The
/// file appears under its name only at finish().
class SafetensorsWriter {
 public:
  /// The infos' begin and end are set here. Throws Error(file) when the file cannot be made.
  SafetensorsWriter(const fs::path& path, std::vector<TensorInfo> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});
  /// The next bytes; a tensor may come in several pieces.
  void write(std::span<const std::byte> bytes);
  /// Checks that every byte announced was written, makes the file durable and returns its checksum (Checksum::hex).
  std::string finish();

 private:
  AtomicFile file_;
  Checksum checksum_;
  uint64_t expected_ = 0, written_ = 0;
};

}  // namespace llmtk::io
