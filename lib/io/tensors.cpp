#include "io/tensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <map>
#include <set>

#include "core/error.h"

namespace llmtk::io {
namespace {

constexpr std::pair<DType, c10::ScalarType> kTypes[] = {
    {DType::boolean, c10::kBool},
    {DType::u8, c10::kByte},
    {DType::i8, c10::kChar},
    {DType::f8_e4m3, c10::kFloat8_e4m3fn},
    {DType::f8_e5m2, c10::kFloat8_e5m2},
    {DType::u16, c10::kUInt16},
    {DType::i16, c10::kShort},
    {DType::f16, c10::kHalf},
    {DType::bf16, c10::kBFloat16},
    {DType::u32, c10::kUInt32},
    {DType::i32, c10::kInt},
    {DType::f32, c10::kFloat},
    {DType::u64, c10::kUInt64},
    {DType::i64, c10::kLong},
    {DType::f64, c10::kDouble},
};

uint64_t byte_count(const at::Tensor& tensor) { return static_cast<uint64_t>(tensor.numel()) * tensor.element_size(); }

}  // namespace

c10::ScalarType to_scalar_type(DType dtype) {
  for (const auto& [ours, theirs] : kTypes)
    if (ours == dtype) return theirs;
  LLMTK_CHECK(false, "dtype without a scalar type");
}

DType to_dtype(c10::ScalarType type) {
  for (const auto& [ours, theirs] : kTypes)
    if (theirs == type) return ours;
  throw Error(Exit::file, {.what = "safetensors cannot hold this type", .got = c10::toString(type)});
}

at::Tensor tensor_view(const WeightFiles::Entry& entry) {
  const auto bytes = entry.file->bytes(*entry.tensor);
  const auto options = at::TensorOptions().dtype(to_scalar_type(entry.tensor->dtype));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  if (bytes.empty()) return at::empty(entry.tensor->shape, options);
  if (address % dtype_size(entry.tensor->dtype) != 0) {
    at::Tensor copy = at::empty(entry.tensor->shape, options);
    std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  void* data = const_cast<std::byte*>(bytes.data());
  return at::from_blob(
      data, entry.tensor->shape, [file = entry.file](void*) {}, options);
}

NamedTensors load_tensors(const fs::path& path) {
  NamedTensors tensors;
  const WeightFiles files(path);
  for (const auto& [name, entry] : files.tensors()) tensors.emplace_back(name, tensor_view(entry));
  return tensors;
}

std::string save_tensors(const fs::path& path, const NamedTensors& tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> infos;
  for (const auto& [name, tensor] : tensors)
    infos.push_back({.name = name, .dtype = to_dtype(tensor.scalar_type()), .shape = tensor.sizes().vec()});
  SafetensorsWriter writer(path, std::move(infos), metadata);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor whole = tensor.detach().to(c10::kCPU).contiguous();
    writer.write({static_cast<const std::byte*>(whole.const_data_ptr()), byte_count(whole)});
  }
  return writer.finish();
}

std::vector<WrittenFile> save_weights(const fs::path& folder, const NamedTensors& tensors, uint64_t max_shard_bytes) {
  fs::create_directories(folder);
  std::vector<NamedTensors> shards(1);
  uint64_t total = 0, in_shard = 0;
  for (const auto& named : tensors) {
    const uint64_t bytes = byte_count(named.second);
    if (!shards.back().empty() && in_shard + bytes > max_shard_bytes) {
      shards.emplace_back();
      in_shard = 0;
    }
    shards.back().push_back(named);
    in_shard += bytes;
    total += bytes;
  }

  std::vector<WrittenFile> written;
  if (shards.size() == 1) {
    written.push_back({kWeightsFile, save_tensors(folder / kWeightsFile, shards[0])});
  } else {
    std::map<std::string, std::string> weight_map;  // sorted, as transformers writes it
    for (size_t i = 0; i < shards.size(); ++i) {
      char name[64];
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
      written.push_back({name, save_tensors(folder / name, shards[i])});
      for (const auto& [tensor, ignored] : shards[i]) weight_map[tensor] = name;
    }
    write_json(folder / kWeightsIndex, {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}});
    written.push_back({kWeightsIndex, checksum_file(folder / kWeightsIndex)});
  }

  std::set<std::string> current;
  for (const auto& file : written) current.insert(file.name);
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool weights =
        (name.starts_with("model-") && name.ends_with(".safetensors")) || name == kWeightsFile || name == kWeightsIndex;
    if (weights && !current.contains(name)) fs::remove(entry.path());
  }
  return written;
}

}  // namespace llmtk::io
