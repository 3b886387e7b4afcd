#include "io/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <set>

#include "core/error.h"
#include "core/utf8.h"
#include "io/json.h"

namespace llmtk::io {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian, and so is this reader");

struct DTypeRow {
  DType dtype;
  std::string_view tag;
  size_t size;
};
constexpr DTypeRow kDTypes[] = {
    {DType::boolean, "BOOL", 1},    {DType::u8, "U8", 1},   {DType::i8, "I8", 1},   {DType::f8_e4m3, "F8_E4M3", 1},
    {DType::f8_e5m2, "F8_E5M2", 1}, {DType::u16, "U16", 2}, {DType::i16, "I16", 2}, {DType::f16, "F16", 2},
    {DType::bf16, "BF16", 2},       {DType::u32, "U32", 4}, {DType::i32, "I32", 4}, {DType::f32, "F32", 4},
    {DType::u64, "U64", 8},         {DType::i64, "I64", 8}, {DType::f64, "F64", 8},
};

/// What the format's own library allows; a longer header is an attack or another kind of file.
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxDims = 64;

[[noreturn]] void broken(const fs::path& path, const std::string& what, const std::string& got = {},
                         const std::string& expected = {}) {
  throw Error(Exit::file, {.what = what,
                           .where = path.string(),
                           .got = got,
                           .expected = expected,
                           .hint = "the file is damaged or not a safetensors file; fetch or save it again"});
}

std::optional<uint64_t> as_unsigned(const SortedJson& value) {
  if (!value.is_number_unsigned()) return std::nullopt;
  return value.get<uint64_t>();
}

TensorInfo read_tensor(const fs::path& path, const std::string& name, const SortedJson& entry, uint64_t data_size) {
  const std::string who = "tensor " + in_quotes(name);
  if (!entry.is_object()) broken(path, who + " is not described by an object");
  TensorInfo info{.name = name};

  const auto dtype = entry.find("dtype"), shape = entry.find("shape"), offsets = entry.find("data_offsets");
  if (dtype == entry.end() || shape == entry.end() || offsets == entry.end() || entry.size() != 3)
    broken(path, who + " must have dtype, shape and data_offsets, and nothing else");

  const std::string tag = dtype->is_string() ? dtype->get<std::string>() : dtype->dump();
  const auto row = std::ranges::find(kDTypes, std::string_view(tag), &DTypeRow::tag);
  if (row == std::end(kDTypes))
    broken(path, who + " has an unknown dtype", in_quotes(tag), "F32, F16, BF16, I64 and the like");
  info.dtype = row->dtype;

  if (!shape->is_array() || shape->size() > kMaxDims) broken(path, who + " has a shape that is not a short list");
  uint64_t bytes = row->size;
  for (const SortedJson& dim : *shape) {
    const auto n = as_unsigned(dim);
    if (!n || *n > static_cast<uint64_t>(INT64_MAX))
      broken(path, who + " has a dimension that is not a size", in_quotes(dim.dump()));
    if (__builtin_mul_overflow(bytes, *n, &bytes)) broken(path, who + " has more elements than can be counted");
    info.shape.push_back(static_cast<int64_t>(*n));
  }

  const bool pair = offsets->is_array() && offsets->size() == 2;
  const auto begin = pair ? as_unsigned((*offsets)[0]) : std::nullopt;
  const auto end = pair ? as_unsigned((*offsets)[1]) : std::nullopt;
  if (!begin || !end || *begin > *end)
    broken(path, who + " has data_offsets that are no range", in_quotes(offsets->dump()));
  if (*end > data_size)
    broken(path, who + " reaches beyond the end of the file", "offset " + std::to_string(*end),
           "at most " + std::to_string(data_size));
  if (*end - *begin != bytes)
    broken(path, who + " has data_offsets that do not fit its shape", std::to_string(*end - *begin) + " bytes",
           std::to_string(bytes));
  info.begin = *begin;
  info.end = *end;
  return info;
}

/// The tensors, in the order of their bytes, must fill the data without gap or overlap.
void check_layout(const fs::path& path, const std::vector<TensorInfo>& tensors, uint64_t data_size) {
  uint64_t at = 0;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != at)
      broken(path,
             "tensor " + in_quotes(tensor.name) + " " +
                 (tensor.begin < at ? "overlaps another" : "leaves a gap before it"),
             "offset " + std::to_string(tensor.begin), std::to_string(at));
    at = tensor.end;
  }
  if (at != data_size)
    broken(path, "bytes after the last tensor", std::to_string(data_size) + " bytes of data", std::to_string(at));
}

}  // namespace

std::string_view dtype_tag(DType dtype) { return std::ranges::find(kDTypes, dtype, &DTypeRow::dtype)->tag; }
size_t dtype_size(DType dtype) { return std::ranges::find(kDTypes, dtype, &DTypeRow::dtype)->size; }

int64_t TensorInfo::count() const {
  int64_t n = 1;
  for (const int64_t dim : shape) n *= dim;
  return n;
}

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  uint64_t header_size = 0;
  if (file_.size() < sizeof header_size)
    broken(path, "too short", std::to_string(file_.size()) + " bytes", "8 or more");
  std::memcpy(&header_size, file_.bytes().data(), sizeof header_size);
  if (header_size > kMaxHeader)
    broken(path, "the header is too long", std::to_string(header_size) + " bytes",
           "at most " + std::to_string(kMaxHeader));
  if (header_size > file_.size() - sizeof header_size)
    broken(path, "the header reaches beyond the end of the file", std::to_string(header_size) + " bytes",
           "at most " + std::to_string(file_.size() - sizeof header_size));
  data_start_ = sizeof header_size + header_size;
  const uint64_t data_size = file_.size() - data_start_;

  const auto header =
      parse_json<SortedJson>(file_.text().substr(sizeof header_size, header_size), path.string() + ": header");
  if (!header.is_object()) broken(path, "the header is not a JSON object");
  for (const auto& item : header.items()) {
    if (item.key() != "__metadata__") {
      tensors_.push_back(read_tensor(path, item.key(), item.value(), data_size));
      continue;
    }
    if (!item.value().is_object()) broken(path, "__metadata__ is not an object of strings");
    for (const auto& entry : item.value().items()) {
      if (!entry.value().is_string()) broken(path, "__metadata__ is not an object of strings");
      metadata_[entry.key()] = entry.value().get<std::string>();
    }
  }
  std::ranges::stable_sort(tensors_, [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(path, tensors_, data_size);
  for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
}

const TensorInfo* SafetensorsFile::find(const std::string& name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  return file_.bytes().subspan(data_start_ + tensor.begin, tensor.end - tensor.begin);
}

std::string safetensors_header(std::vector<TensorInfo>& tensors, const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + Json(metadata).dump();
  std::set<std::string_view> names;
  uint64_t at = 0;
  for (TensorInfo& tensor : tensors) {
    LLMTK_CHECK(names.insert(tensor.name).second, "tensor '", tensor.name, "' is written twice");
    tensor.begin = at;
    tensor.end = at += static_cast<uint64_t>(tensor.count()) * dtype_size(tensor.dtype);
    const Json entry = {
        {"dtype", dtype_tag(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
    text += (text.size() > 1 ? "," : "") + Json(tensor.name).dump() + ":" + entry.dump();
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');  // so that the data start at a multiple of 8
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text;
}

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<TensorInfo> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const std::string header = safetensors_header(tensors, metadata);
  if (!tensors.empty()) expected_ = tensors.back().end;
  file_.write(std::as_bytes(std::span(header)));
  checksum_.update(std::as_bytes(std::span(header)));
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  written_ += bytes.size();
  LLMTK_CHECK(written_ <= expected_, written_, " bytes written, ", expected_, " announced");
  file_.write(bytes);
  checksum_.update(bytes);
}

std::string SafetensorsWriter::finish() {
  LLMTK_CHECK(written_ == expected_, written_, " bytes written, ", expected_, " announced");
  file_.commit();
  return checksum_.hex();
}

}  // namespace llmtk::io
