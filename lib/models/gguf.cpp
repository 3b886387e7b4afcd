#include "models/gguf.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "core/device.h"
#include "core/error.h"
#include "models/gguf_config.h"

namespace llmtk::models {
namespace {

using at::Tensor;

/// Elements that are decoded or encoded at a time: little memory, and enough for all threads.
constexpr int64_t kChunk = int64_t{1} << 22;

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string listed(const std::vector<std::string>& names, size_t most = 8) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), most); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > most) text += " and " + std::to_string(names.size() - most) + " more";
  return text;
}

std::optional<c10::ScalarType> plain_type(io::GgufType type) {
  switch (type) {
    case io::GgufType::f32:
      return c10::kFloat;
    case io::GgufType::f16:
      return c10::kHalf;
    case io::GgufType::bf16:
      return c10::kBFloat16;
    default:
      return std::nullopt;
  }
}

c10::ScalarType stored_dtype(const io::GgufFile& file) {
  std::map<io::GgufType, int64_t> counts;
  for (const io::GgufTensor& tensor : file.tensors()) counts[tensor.type] += tensor.count();
  const auto most = std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; });
  return most == counts.end() ? c10::kFloat : plain_type(most->first).value_or(c10::kFloat);
}

/// What a model's parameters are cut by on the way between Hugging Face's layout and the file's.
struct Heads {
  int64_t query = 0, key = 0;
};
Heads heads_of(const io::Json& config) {
  const int64_t query = config.value("num_attention_heads", int64_t{0});
  const auto key = config.find("num_key_value_heads");
  return {query, key != config.end() && key->is_number_integer() ? key->get<int64_t>() : query};
}

/// A parameter in the order of the file's rows.
class FileRows {
 public:
  FileRows(Tensor parameter, GgufLayout layout, const Heads& heads)
      : parameter_(parameter.dim() == 1 ? parameter.view({-1, 1}) : parameter), layout_(layout) {
    transposed_ = layout == GgufLayout::transposed && parameter.dim() == 2;
    const int64_t count = layout == GgufLayout::query_rows ? heads.query
                          : layout == GgufLayout::key_rows ? heads.key
                                                           : 0;
    if (count > 0) rows_of_head_ = parameter_.size(0) / count;
  }

  int64_t rows() const { return parameter_.size(transposed_ ? 1 : 0); }
  int64_t columns() const { return parameter_.size(transposed_ ? 0 : 1); }
  /// How many rows to take at a time: whole heads, and whole blocks of what is one column wide.
  int64_t step() const {
    const int64_t unit = rows_of_head_ > 0 ? rows_of_head_ : columns() == 1 ? 256 : 1;
    return std::max(unit, kChunk / columns() / unit * unit);
  }
  /// A view of `count` rows from `first` on, which in its own order is the file's.
  Tensor view(int64_t first, int64_t count) const {
    if (transposed_) return parameter_.narrow(1, first, count).t();  // [count, in]
    const Tensor rows = parameter_.narrow(0, first, count);          // [count, columns]
    if (rows_of_head_ == 0) return rows;
    // The rotary pairs: the two halves of a head's rows alternate in the file.
    return rows.view({count / rows_of_head_, 2, rows_of_head_ / 2, columns()}).transpose(1, 2);
  }
  /// The file's numbers minus the model's.
  double offset() const { return layout_ == GgufLayout::plus_one ? 1 : 0; }

 private:
  Tensor parameter_;  // [rows, columns] in Hugging Face's order
  GgufLayout layout_;
  bool transposed_ = false;
  int64_t rows_of_head_ = 0;
};

/// Calls body(first, count) over all rows.
template <class Body>
void for_each_chunk(const FileRows& rows, Body&& body) {
  for (int64_t first = 0; first < rows.rows(); first += rows.step())
    body(first, std::min(rows.step(), rows.rows() - first));
}

/// Calls body(begin, end) for parts of `count` elements, whole blocks each, on all threads.
template <class Body>
void for_each_part(int64_t count, int64_t block, Body&& body) {
  at::parallel_for(0, count / block, std::max<int64_t>(1, 65536 / block),
                   [&](int64_t begin, int64_t end) { body(begin * block, end * block); });
}

void decode(const io::GgufFile& file, const io::GgufTensor& tensor, const FileRows& rows) {
  const auto block = static_cast<int64_t>(io::block_elements(tensor.type));
  const auto block_bytes = static_cast<int64_t>(io::block_bytes(tensor.type));
  const auto bytes = file.bytes(tensor);
  for_each_chunk(rows, [&](int64_t first, int64_t count) {
    const Tensor buffer = at::empty({count * rows.columns()}, c10::kFloat);
    float* numbers = buffer.mutable_data_ptr<float>();
    const int64_t start = first * rows.columns();
    for_each_part(buffer.numel(), block, [&](int64_t begin, int64_t end) {
      const auto part = bytes.subspan(static_cast<size_t>((start + begin) / block * block_bytes),
                                      static_cast<size_t>((end - begin) / block * block_bytes));
      io::dequantize(tensor.type, part, {numbers + begin, static_cast<size_t>(end - begin)});
    });
    if (rows.offset() != 0) buffer.sub_(rows.offset());
    const Tensor view = rows.view(first, count);
    view.copy_(buffer.view(view.sizes()));
  });
}

/// Tells the kernel that mapped bytes have been read: their pages need not stay in this process.
void release(std::span<const std::byte> bytes) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data() + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

/// The file's own bytes as a tensor, where they can be used as they lie.
std::optional<Tensor> mapped_view(const std::shared_ptr<const io::GgufFile>& file, const io::GgufTensor& tensor,
                                  GgufLayout layout, const Tensor& target) {
  const auto type = plain_type(tensor.type);
  const auto address = reinterpret_cast<uintptr_t>(file->bytes(tensor).data());
  if (layout != GgufLayout::same || !type || target.scalar_type() != *type || !target.device().is_cpu() ||
      address % target.element_size() != 0)
    return std::nullopt;
  void* data = const_cast<std::byte*>(file->bytes(tensor).data());
  return at::from_blob(
      data, tensor.shape, [file](void*) {}, target.options());
}

/// Sizes that the metadata and the tensors both say, before a model of those sizes is made.
void check_sizes(const io::GgufFile& file, const GgufArchitecture& architecture) {
  const auto check = [&](const char* key, const char* tensor, size_t dim) {
    const io::GgufTensor* found = file.find_tensor(tensor);
    const std::string name = std::string(architecture.name) + "." + key;
    if (found && found->shape.size() > dim && found->shape[dim] != file.integer(name))
      file.fail(name, std::to_string(file.integer(name)),
                std::to_string(found->shape[dim]) + ", as tensor '" + tensor + "' has it");
  };
  check("embedding_length", "token_embd.weight", 1);
  check("feed_forward_length", "blk.0.ffn_up.weight", 0);
  if (architecture.name == "gpt2") check("context_length", "position_embd.weight", 0);
  const std::string key = std::string(architecture.name) + ".block_count";
  const int64_t layers = file.integer(key);
  if (layers < 1 || !file.find_tensor("blk." + std::to_string(layers - 1) + ".attn_norm.weight"))
    file.fail(key, std::to_string(layers), "the number of layers that the file has tensors of");
}

struct Assignment {
  Tensor target;
  const io::GgufTensor* tensor;
  GgufLayout layout;
};

/// Which tensor fills which parameter; strictly one for each.
std::vector<Assignment> assign(const nn::Model& model, const io::GgufFile& file, const GgufArchitecture& architecture,
                               bool tied) {
  std::vector<Assignment> assignments;
  std::vector<std::string> missing, extra;
  std::set<std::string> used = {kRopeFactorsTensor};
  if (tied) used.insert("output.weight");  // the table once more
  for (const auto& parameter : model.named_parameters()) {
    const GgufPlace place = gguf_place(architecture, parameter.key());
    LLMTK_CHECK(!place.name.empty(), "no GGUF name for parameter '", parameter.key(), "'");
    const io::GgufTensor* tensor = file.find_tensor(place.name);
    used.insert(place.name);
    if (!tensor) {
      missing.push_back(place.name);
      continue;
    }
    std::vector<int64_t> expected = parameter.value().sizes().vec();
    if (place.layout == GgufLayout::transposed && expected.size() == 2) std::swap(expected[0], expected[1]);
    if (tensor->shape != expected)
      throw Error(Exit::file, {.what = "tensor '" + place.name + "' has another shape than the metadata says",
                               .where = file.path().string(),
                               .got = shape_text(tensor->shape),
                               .expected = shape_text(expected)});
    assignments.push_back({parameter.value(), tensor, place.layout});
  }
  for (const io::GgufTensor& tensor : file.tensors())
    if (!used.contains(tensor.name)) extra.push_back(tensor.name);
  if (!missing.empty())
    throw Error(Exit::file, {.what = "tensors are missing: " + listed(missing), .where = file.path().string()});
  if (!extra.empty())
    throw Error(Exit::file,
                {.what = "tensors that this model does not have: " + listed(extra), .where = file.path().string()});
  return assignments;
}

}  // namespace

std::shared_ptr<nn::Model> load_gguf(const fs::path& path, const LoadOptions& options) {
  const at::NoGradGuard no_grad;
  const auto file = std::make_shared<const io::GgufFile>(path);
  const GgufArchitecture& architecture = gguf_architecture(*file);
  io::Json config = gguf_config(*file);
  check_sizes(*file, architecture);
  const c10::ScalarType dtype = options.dtype.value_or(stored_dtype(*file));
  config["dtype"] = dtype_name(dtype);
  for (const auto& [key, value] : options.overrides.items()) config[key] = value;
  auto model = make_model(config, path.string(), {dtype, options.device});
  for (auto& [target, tensor, layout] : assign(*model, *file, architecture, config["tie_word_embeddings"])) {
    const auto view = options.map ? mapped_view(file, *tensor, layout, target) : std::nullopt;
    if (view) {
      target.set_data(*view);
      continue;
    }
    decode(*file, *tensor, FileRows(target, layout, heads_of(config)));
    release(file->bytes(*tensor));
  }
  model->eval();
  return model;
}

namespace {

/// general.file_type, with llama.cpp's own numbers.
uint32_t file_type(io::GgufType type) {
  switch (type) {
    case io::GgufType::f32:
      return 0;
    case io::GgufType::f16:
      return 1;
    case io::GgufType::bf16:
      return 32;
    case io::GgufType::q4_0:
      return 2;
    case io::GgufType::q4_1:
      return 3;
    case io::GgufType::q8_0:
      return 7;
    default:
      LLMTK_CHECK(false, "no file of ", io::gguf_type_name(type), " is written");
  }
}

io::GgufType type_of(const Tensor& parameter, const std::string& name, const FileRows& rows, io::GgufType wanted) {
  if (parameter.dim() < 2 || name == "position_embd.weight") return io::GgufType::f32;
  const bool four_bits = wanted == io::GgufType::q4_0 || wanted == io::GgufType::q4_1;
  if (four_bits && (name == "token_embd.weight" || name == "output.weight")) wanted = io::GgufType::q8_0;
  const bool whole_blocks = rows.columns() % static_cast<int64_t>(io::block_elements(wanted)) == 0;
  return whole_blocks ? wanted : io::GgufType::f16;
}

/// Encodes a chunk (float32, contiguous); `again` gets the numbers that the bytes stand for.
std::vector<std::byte> encode(const Tensor& numbers, io::GgufType type, Tensor& again) {
  const int64_t count = numbers.numel(), block = static_cast<int64_t>(io::block_elements(type));
  std::vector<std::byte> bytes(static_cast<size_t>(count / block) * io::block_bytes(type));
  if (const auto plain = plain_type(type)) {
    const Tensor stored = numbers.to(*plain);
    std::memcpy(bytes.data(), stored.const_data_ptr(), bytes.size());
    again = stored.to(c10::kFloat);
    return bytes;
  }
  again = at::empty_like(numbers);
  const float* in = numbers.const_data_ptr<float>();
  float* out = again.mutable_data_ptr<float>();
  for_each_part(count, block, [&](int64_t begin, int64_t end) {
    const size_t size = static_cast<size_t>(end - begin);
    const std::span<std::byte> part(bytes.data() + static_cast<size_t>(begin / block) * io::block_bytes(type),
                                    size / static_cast<size_t>(block) * io::block_bytes(type));
    io::quantize(type, {in + begin, size}, part);
    io::dequantize(type, part, {out + begin, size});
  });
  return bytes;
}

/// Writes one tensor and notes what it lost.
void write_tensor(io::GgufWriter& writer, const io::GgufTensor& tensor, const FileRows& rows, const fs::path& path,
                  GgufReceipt& receipt) {
  double error = 0, largest = 0;
  for_each_chunk(rows, [&](int64_t first, int64_t count) {
    Tensor numbers = rows.view(first, count).to(c10::kCPU, c10::kFloat).contiguous();
    if (rows.offset() != 0) numbers = numbers + rows.offset();
    const double magnitude = numbers.abs().max().item<double>();
    if (!std::isfinite(magnitude))
      throw Error(Exit::file,
                  {.what = "tensor '" + tensor.name + "' holds a number that is not finite", .where = path.string()});
    Tensor again;
    const auto bytes = encode(numbers, tensor.type, again);
    if (!again.isfinite().all().item<bool>())
      throw Error(Exit::file, {.what = "tensor '" + tensor.name + "' holds a number that is too large for " +
                                       std::string(io::gguf_type_name(tensor.type)),
                               .where = path.string(),
                               .got = std::to_string(magnitude),
                               .hint = "write BF16 or F32"});
    writer.write(bytes);
    largest = std::max(largest, magnitude);
    error = std::max(error, (again - numbers).abs().max().item<double>());
  });
  if (error <= receipt.largest_error) return;
  receipt.largest_error = error;
  receipt.relative_error = error / largest;
  receipt.worst_tensor = tensor.name;
}

}  // namespace

GgufReceipt save_gguf(const nn::Model& model, const fs::path& path, io::GgufType type, const std::string& name,
                      const io::GgufMetadata& vocabulary) {
  const at::NoGradGuard no_grad;
  const io::Json config = model.config();
  const std::string model_type = config.value("model_type", "");
  const GgufArchitecture* architecture = gguf_architecture_of(model_type);
  if (model.head() == nn::Head::sequence_classification)
    throw Error(Exit::usage, {.what = "GGUF holds no classifiers", .where = name, .got = model.kind()});
  if (!architecture) {
    std::string known;
    for (const GgufArchitecture& row : gguf_architectures())
      known += (known.empty() ? "" : ", ") + std::string(row.model_type);
    throw Error(
        Exit::usage,
        {.what = "models of this family are not written as GGUF", .where = name, .got = model_type, .expected = known});
  }
  io::GgufMetadata metadata = gguf_shape(config, *architecture, name);
  metadata.insert(metadata.begin() + 1, {{"general.type", "model"},
                                         {"general.name", name},
                                         {"general.file_type", file_type(type)},
                                         {"general.quantization_version", uint32_t{2}}});
  metadata.insert(metadata.end(), vocabulary.begin(), vocabulary.end());

  std::vector<io::GgufTensor> tensors;
  std::vector<FileRows> rows;
  const std::vector<float> factors = gguf_rope_factors(config);
  if (!factors.empty()) {
    tensors.push_back({.name = kRopeFactorsTensor, .shape = {static_cast<int64_t>(factors.size())}});
    rows.emplace_back(at::from_blob(const_cast<float*>(factors.data()), tensors.back().shape, c10::kFloat),
                      GgufLayout::same, Heads{});
  }
  GgufReceipt receipt;
  for (const auto& parameter : model.named_parameters()) {
    const GgufPlace place = gguf_place(*architecture, parameter.key());
    LLMTK_CHECK(!place.name.empty(), "no GGUF name for parameter '", parameter.key(), "'");
    rows.emplace_back(parameter.value(), place.layout, heads_of(config));
    std::vector<int64_t> shape = parameter.value().sizes().vec();
    if (place.layout == GgufLayout::transposed && shape.size() == 2) std::swap(shape[0], shape[1]);
    tensors.push_back({.name = place.name,
                       .type = type_of(parameter.value(), place.name, rows.back(), type),
                       .shape = std::move(shape)});
    receipt.parameters += parameter.value().numel();
  }
  io::GgufWriter writer(path, metadata, tensors);
  for (size_t i = 0; i < tensors.size(); ++i) write_tensor(writer, tensors[i], rows[i], path, receipt);
  receipt.tensors = static_cast<int64_t>(tensors.size());
  receipt.bytes = writer.finish();
  return receipt;
}

}  // namespace llmtk::models
