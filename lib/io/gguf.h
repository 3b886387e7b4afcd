#pragma once
// GGUF, the one-file format of llama.cpp: metadata (the model's shape, its vocabulary, its chat template) and tensors.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/file.h"
#include "io/gguf_blocks.h"

namespace llmtk::io {

/// A value of the metadata. Integers of up to 32 bits are read into 32; a list of integers or booleans into int32 or
/// int64, one of float64 into float32. Lists are written as int32, int64, float32 and strings.
using GgufValue =
    std::variant<bool, uint32_t, int32_t, uint64_t, int64_t, float, double, std::string, std::vector<int32_t>,
                 std::vector<int64_t>, std::vector<float>, std::vector<std::string>>;
/// In the order of the file.
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

/// One tensor of a file: where its bytes lie.
struct GgufTensor {
  std::string name;
  GgufType type = GgufType::f32;
  std::vector<int64_t> shape;   ///< outermost first, as Hugging Face has it (the file has it the other way round)
  uint64_t begin = 0, end = 0;  ///< bytes, counted from where the tensors begin

  int64_t count() const;  ///< elements
};

/// Whether a path names a GGUF file: by its ending.
bool is_gguf_path(const fs::path& path);

/// A GGUF file of version 2 or 3, mapped; the metadata is read, the tensors' bytes only when they are touched.
class GgufFile {
 public:
  /// Throws Error(file) naming the file, and the key or tensor at fault, for anything but a whole, valid file.
  explicit GgufFile(const fs::path& path);

  const fs::path& path() const { return file_.path(); }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  /// In the order in which they lie in the file.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(const std::string& name) const;
  std::span<const std::byte> bytes(const GgufTensor& tensor) const;

  bool has(const std::string& key) const { return metadata_.contains(key); }
  // Values by key: nothing where the file lacks it. Throw Error(file) naming the key for a value of another kind.
  std::optional<int64_t> find_integer(const std::string& key) const;
  /// A float32 comes as the shortest decimal that rounds to it (1e-05, not 9.99999974e-06).
  std::optional<double> find_number(const std::string& key) const;
  std::optional<bool> find_boolean(const std::string& key) const;
  std::optional<std::string> find_string(const std::string& key) const;
  /// Null where the file lacks it.
  const std::vector<std::string>* find_strings(const std::string& key) const;
  const std::vector<float>* find_numbers(const std::string& key) const;
  const std::vector<int32_t>* find_integers(const std::string& key) const;
  // The same, where a missing key is an Error(file) too.
  int64_t integer(const std::string& key) const;
  double number(const std::string& key) const;
  std::string string(const std::string& key) const;

  /// Throws Error(file): this key has a value that cannot be used.
  [[noreturn]] void fail(const std::string& key, const std::string& got, const std::string& expected,
                         const std::string& hint = {}) const;

 private:
  template <class T>
  const T* find_list(const std::string& key, const char* expected) const;

  MappedFile file_;
  std::map<std::string, GgufValue> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> index_;
  uint64_t data_start_ = 0;
};

/// The ids that end a generated text: of the sequence, of the turn, of the message. Without repetition.
std::vector<int64_t> gguf_end_ids(const GgufFile& file);

/// Writes a GGUF file of version 3: metadata first, then the tensors in the order announced. The file appears under its
/// name only at finish().
class GgufWriter {
 public:
  /// The tensors' begin and end are set here. Throws Error(file) when the file cannot be made.
  GgufWriter(const fs::path& path, const GgufMetadata& metadata, std::vector<GgufTensor> tensors);
  /// The next bytes; a tensor may come in several pieces, but no piece holds parts of two.
  void write(std::span<const std::byte> bytes);
  /// Checks that every tensor was written, makes the file durable and returns its size in bytes.
  uint64_t finish();

 private:
  AtomicFile file_;
  std::vector<GgufTensor> tensors_;
  size_t next_ = 0;       // the tensor that is written
  uint64_t written_ = 0;  // of its bytes
};

}  // namespace llmtk::io
