#pragma once
// safetensors as LibTorch's tensors: reading without a copy, writing without holding the model twice.

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "io/model_folder.h"

namespace llmtk::io {

c10::ScalarType to_scalar_type(DType dtype);
/// Throws Error(file) for a type that safetensors lacks (complex, quantized).
DType to_dtype(c10::ScalarType type);

/// A tensor over the mapped file's own bytes (read-only memory: writing to it crashes); it keeps the map alive. Where
/// the file does not align the data to its element, a copy.
at::Tensor tensor_view(const WeightFiles::Entry& entry);

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Every tensor of a file, as views.
NamedTensors load_tensors(const fs::path& path);

/// Writes one safetensors file, atomically, tensor by tensor: at most one is copied at a time (and only when it is not
/// contiguous on the CPU). Returns the file's checksum. Throws Error(file).
std::string save_tensors(const fs::path& path, const NamedTensors& tensors,
                         const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

/// A file written into a folder, with what a manifest needs.
struct WrittenFile {
  std::string name;
  std::string checksum;
};

/// The weights of a model folder: model.safetensors, or shards of at most `max_shard_bytes` (a single larger tensor
/// gets a shard of its own) with their index. Weight files of an earlier save that no longer belong are removed at the
/// end.
std::vector<WrittenFile> save_weights(const fs::path& folder, const NamedTensors& tensors,
                                      uint64_t max_shard_bytes = uint64_t{50} << 30);

}  // namespace llmtk::io
