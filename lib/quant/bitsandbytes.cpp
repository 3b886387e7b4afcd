#include "quant/bitsandbytes.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <cstring>

#include "core/device.h"
#include "core/error.h"
#include "quant/packed_weight.h"

namespace llmtk::quant {
namespace {

using kernels::QuantizedMatrix;
using kernels::QuantType;

constexpr int64_t kBlock = kernels::kQuantBlock, kScaleBlock = kernels::kQuantScaleBlock;
/// The JSON's length, whatever its numbers: filled with blanks, which a reader of JSON passes over.
constexpr int64_t kStateBytes = 256;
constexpr const char* kState = ".quant_state.bitsandbytes__";

int64_t blocks_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

const char* type_name(QuantType type) { return type == QuantType::fp4 ? "fp4" : "nf4"; }

at::Tensor values_tensor(QuantType type) {
  return at::tensor(c10::ArrayRef<float>(kernels::values_of(type).data(), 16));
}

at::Tensor state_tensor(const io::Json& json) {
  std::string text = json.dump();
  LLMTK_CHECK(text.size() <= kStateBytes, text);
  text.resize(kStateBytes, ' ');
  const at::Tensor bytes = at::empty({kStateBytes}, at::kByte);
  std::memcpy(bytes.mutable_data_ptr(), text.data(), text.size());
  return bytes;
}

class Bitsandbytes : public nn::StorageReader {
 public:
  Bitsandbytes(const io::Json& config, const io::WeightFiles& weights, std::string where)
      : where_(std::move(where)), weights_(weights.tensors()) {
    io::ObjectReader reader(config, where_ + ": quantization_config");
    if (!reader.boolean_or("load_in_4bit", false))
      throw Error(Exit::file,
                  {.what = "the folder is quantized in a scheme that is not known here",
                   .where = where_,
                   .got = "bitsandbytes' 8 bits (LLM.int8())",
                   .expected = "its 4 bits (nf4, fp4)",
                   .hint = "load the weights as they were before quantization; llmtk quantize makes a folder of "
                           "them, W8A8 or W8A16"});
    compute_dtype_ = parse_dtype(reader.string_or("bnb_4bit_compute_dtype", "float32"));
    if (compute_dtype_ != c10::kFloat) compute_dtype_ = c10::kBFloat16;
    for (const auto& [name, entry] : weights_)
      if (const size_t at = name.find(".weight."); at != name.npos) {
        const std::string path = name.substr(0, at);
        auto& names = modules_[path];
        names.insert(name);
        names.insert(path + ".weight");
      }
  }

  const std::map<std::string, std::set<std::string>>& modules() const override { return modules_; }

  std::shared_ptr<const nn::WeightStorage> read(const std::string& path, int64_t rows, int64_t columns, bool is_table,
                                                c10::Device device) const override {
    if (is_table) throw Error(Exit::file, {.what = "a table in bitsandbytes' 4 bits: " + path, .where = where_});
    const std::string weight = path + ".weight";
    const bool is_fp4 = weights_.contains(weight + kState + "fp4");
    QuantizedMatrix q{.type = is_fp4 ? QuantType::fp4 : QuantType::nf4, .rows = rows, .columns = columns};
    const io::Json state = read_state(weight + kState + type_name(q.type), rows, columns);
    const int64_t n = rows * columns, blocks = blocks_of(n, kBlock);
    q.codes = tensor(weight, blocks_of(n, 2), c10::kByte);
    if (!tensor(weight + ".quant_map", 16, c10::kFloat).equal(values_tensor(q.type)))
      throw Error(Exit::file, {.what = "tensor '" + weight + ".quant_map' has other values than " + type_name(q.type),
                               .where = where_});
    if (!weights_.contains(weight + ".nested_absmax")) {
      q.scales = tensor(weight + ".absmax", blocks, c10::kFloat);
    } else {
      q.scale_codes = tensor(weight + ".absmax", blocks, c10::kByte);
      q.scale_scales = tensor(weight + ".nested_absmax", blocks_of(blocks, kScaleBlock), c10::kFloat);
      q.scale_map = tensor(weight + ".nested_quant_map", 256, c10::kFloat);
      q.scale_offset = state.at("nested_offset").get<float>();
    }
    return std::make_shared<PackedWeight>(device.is_cpu() ? q : q.to(device), compute_dtype_);
  }

 private:
  io::Json read_state(const std::string& name, int64_t rows, int64_t columns) const {
    const io::WeightFiles::Entry& entry = find(name);
    const auto bytes = entry.file->bytes(*entry.tensor);
    const io::Json state =
        io::parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, where_ + ": " + name);
    io::ObjectReader reader(state, where_ + ": " + name);
    reader.only("blocksize", kBlock);
    if (reader.has("nested_absmax") || reader.has("nested_offset")) {
      reader.only("nested_blocksize", kScaleBlock);
      reader.number("nested_offset");
    }
    if (!state.contains("shape") || state["shape"] != io::Json({rows, columns}))
      throw Error(Exit::file, {.what = "'" + name + "' says another shape than config.json",
                               .where = where_,
                               .got = state.value("shape", io::Json()).dump(),
                               .expected = io::Json({rows, columns}).dump()});
    return state;
  }

  const io::WeightFiles::Entry& find(const std::string& name) const {
    const auto found = weights_.find(name);
    if (found != weights_.end()) return found->second;
    throw Error(Exit::file, {.what = "tensor '" + name + "' is missing",
                             .where = where_,
                             .hint = "the folder is not whole: fetch it again, or quantize the model once more"});
  }

  /// Flat.
  at::Tensor tensor(const std::string& name, int64_t count, c10::ScalarType type) const {
    const io::WeightFiles::Entry& entry = find(name);
    const c10::ScalarType own = io::to_scalar_type(entry.tensor->dtype);
    if (own != type || entry.tensor->count() != count)
      throw Error(Exit::file, {.what = "tensor '" + name + "' does not fit its matrix",
                               .where = entry.file->path().string(),
                               .got = detail::concat(own, " ", c10::IntArrayRef(entry.tensor->shape)),
                               .expected = detail::concat(type, " of ", count, " numbers")});
    return io::tensor_view(entry).view({-1});
  }

  std::string where_;
  std::map<std::string, io::WeightFiles::Entry> weights_;
  c10::ScalarType compute_dtype_ = c10::kFloat;
  std::map<std::string, std::set<std::string>> modules_;
};

}  // namespace

io::NamedTensors nf4_tensors(const std::string& path, const QuantizedMatrix& q, c10::ScalarType dtype) {
  LLMTK_CHECK(q.type == QuantType::nf4 && q.scale_codes.defined(), "NF4, doubly quantized");
  const std::string weight = path + ".weight";
  const io::Json state = {{"quant_type", "nf4"},
                          {"blocksize", kBlock},
                          {"dtype", dtype_name(dtype)},
                          {"shape", {q.rows, q.columns}},
                          {"nested_blocksize", kScaleBlock},
                          {"nested_dtype", "float32"},
                          {"nested_offset", q.scale_offset}};
  return {{weight, q.codes.view({-1, 1})},
          {weight + ".absmax", q.scale_codes},
          {weight + ".nested_absmax", q.scale_scales},
          {weight + ".nested_quant_map", q.scale_map},
          {weight + ".quant_map", values_tensor(q.type)},
          {weight + kState + "nf4", state_tensor(state)}};
}

std::vector<io::TensorInfo> nf4_infos(const std::string& path, int64_t rows, int64_t columns) {
  const std::string weight = path + ".weight";
  const int64_t n = rows * columns, blocks = blocks_of(n, kBlock);
  return {{weight, io::DType::u8, {blocks_of(n, 2), 1}},
          {weight + ".absmax", io::DType::u8, {blocks}},
          {weight + ".nested_absmax", io::DType::f32, {blocks_of(blocks, kScaleBlock)}},
          {weight + ".nested_quant_map", io::DType::f32, {256}},
          {weight + ".quant_map", io::DType::f32, {16}},
          {weight + kState + "nf4", io::DType::u8, {kStateBytes}}};
}

io::Json bitsandbytes_config(const std::vector<std::string>& skipped, c10::ScalarType dtype) {
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", true},
          {"bnb_4bit_compute_dtype", dtype_name(dtype)},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_skip_modules", skipped}};
}

std::unique_ptr<nn::StorageReader> open_bitsandbytes(const io::Json& config, const io::WeightFiles& weights,
                                                     const std::string& where) {
  return std::make_unique<Bitsandbytes>(config, weights, where);
}

}  // namespace llmtk::quant
