#include "quant/compressed_tensors.h"

#include <ATen/ops/tensor.h>

#include <algorithm>

#include "core/error.h"
#include "quant/integer_weight.h"

namespace llmtk::quant {
namespace {

using kernels::IntegerFormat;
using kernels::IntegerMatrix;

constexpr const char* kUnquantized =
    "load the weights as they were before quantization; llmtk quantize makes a folder of them";

int64_t words_for(int64_t codes, int bits) { return (codes * bits + 31) / 32; }

io::Json weight_arguments(const IntegerFormat& format, bool actorder) {
  io::Json json = {{"num_bits", format.bits},
                   {"type", "int"},
                   {"symmetric", format.symmetric},
                   {"group_size", format.group_size ? io::Json(format.group_size) : io::Json()},
                   {"strategy", format.group_size ? "group" : "channel"},
                   {"dynamic", false}};
  if (actorder) json["actorder"] = "weight";
  return json;
}

const io::Json& dynamic_arguments() {
  static const io::Json json = {{"num_bits", 8},         {"type", "int"},       {"symmetric", true},
                                {"group_size", nullptr}, {"strategy", "token"}, {"dynamic", true}};
  return json;
}

const char* format_name(const IntegerFormat& format) { return format.packed ? "pack-quantized" : "int-quantized"; }

/// What a group's weights are called in messages: "int4, strategy group".
std::string text_of(const io::Json& arguments) {
  const auto text = [&](const char* key) {
    const auto found = arguments.find(key);
    return found == arguments.end() ? std::string("?") : found->is_string() ? found->get<std::string>() : found->dump();
  };
  return text("type") + text("num_bits") + ", strategy " + text("strategy") + ", dynamic " + text("dynamic");
}

[[noreturn]] void refuse_scheme(const std::string& where, const std::string& got) {
  throw Error(
      Exit::file,
      {.what = "the folder is quantized in a scheme that is not known here",
       .where = where,
       .got = got,
       .expected = "integers of 4 or 8 bits (W8A8 with dynamic activations, W8A16, W4A16, W4A8), or bitsandbytes' nf4",
       .hint = kUnquantized});
}

IntegerFormat read_weights(io::ObjectReader& reader, const io::Json& json, const std::string& where) {
  IntegerFormat format;
  const std::string type = reader.string_or("type", "int"), strategy = reader.string_or("strategy", "");
  format.bits = static_cast<int>(reader.integer_or("num_bits", 8));
  format.symmetric = reader.boolean_or("symmetric", true);
  const auto actorder = json.find("actorder");
  const bool by_group = actorder != json.end() && (*actorder == "group" || *actorder == "dynamic" || *actorder == true);
  const auto dynamic = json.find("dynamic");
  if (type != "int" || (format.bits != 4 && format.bits != 8) || (dynamic != json.end() && *dynamic != false))
    refuse_scheme(where, "weights " + text_of(json));
  if (by_group) refuse_scheme(where, "weights in the order of activations with weight_g_idx (actorder: group)");
  if (strategy == "group" || (strategy.empty() && reader.has("group_size")))
    format.group_size = reader.integer("group_size");
  else if (strategy != "channel" && strategy != "tensor")
    refuse_scheme(where, "weights " + text_of(json));
  return format;
}

bool reads_dynamic(const io::Json& group, const std::string& where) {
  const auto inputs = group.find("input_activations");
  if (inputs == group.end() || inputs->is_null()) return false;
  for (const auto& [key, value] : dynamic_arguments().items())
    if (key != "group_size" && inputs->value(key, io::Json()) != value)
      refuse_scheme(where, "input activations " + text_of(*inputs));
  return true;
}

SchemeGroup read_group(const std::string& name, const io::Json& json, const std::string& where) {
  const std::string place = where + ": quantization_config.config_groups." + name;
  if (json.is_array()) {  // a preset's name with its targets
    SchemeGroup group{scheme_named(name), {}};
    for (const io::Json& target : json) group.targets.emplace_back(target.get<std::string>());
    return group;
  }
  io::ObjectReader reader(json, place);
  SchemeGroup group{{name, {}}, {}};
  for (const std::string& target : reader.strings("targets")) group.targets.emplace_back(target);
  auto weights = reader.object("weights");
  if (!weights) refuse_scheme(place, "activations alone");
  group.scheme.format = read_weights(*weights, json.at("weights"), place);
  group.scheme.format.dynamic_activations = reads_dynamic(json, place);
  if (reader.has("output_activations")) refuse_scheme(place, "output activations");
  return group;
}

class CompressedTensors : public nn::StorageReader {
 public:
  CompressedTensors(const io::Json& config, const io::WeightFiles& weights, std::string where)
      : where_(std::move(where)), weights_(weights.tensors()) {
    io::ObjectReader reader(config, where_ + ": quantization_config");
    if (const std::string status = reader.string_or("quantization_status", "compressed"); status != "compressed")
      refuse_scheme(where_, "weights that are not compressed (quantization_status: " + status + ")");
    for (const char* key : {"kv_cache_scheme", "sparsity_config", "transform_config"})
      if (const auto found = config.find(key); found != config.end() && !found->is_null() && !found->empty())
        refuse_scheme(where_, key);
    if (!config.contains("config_groups") || !config["config_groups"].is_object())
      refuse_scheme(where_, "no config_groups");
    for (const auto& [name, group] : config["config_groups"].items())
      groups_.push_back(read_group(name, group, where_));
    if (reader.has("ignore"))
      for (const std::string& text : reader.strings("ignore")) ignore_.emplace_back(text);
    find_modules();
  }

  const std::map<std::string, std::set<std::string>>& modules() const override { return modules_; }

  std::shared_ptr<const nn::WeightStorage> read(const std::string& path, int64_t rows, int64_t columns, bool is_table,
                                                c10::Device device) const override {
    const SchemeGroup* group = group_of(groups_, ignore_, path, is_table);
    if (!group)
      throw Error(Exit::file, {.what = "'" + path + "' is quantized, but no group of quantization_config means it",
                               .where = where_});
    IntegerMatrix m{.format = group->scheme.format, .rows = rows, .columns = columns};
    m.format.packed = weights_.contains(path + ".weight_packed");
    if (columns % m.group_size() != 0)
      throw Error(Exit::file, {.what = "'" + path + "' has " + std::to_string(columns) + " columns",
                               .where = where_,
                               .expected = "a multiple of the group size, " + std::to_string(m.group_size())});
    const int bits = m.format.bits;
    const int64_t G = m.groups();
    m.codes = m.format.packed ? tensor(path, "weight_packed", {rows, words_for(columns, bits)}, {c10::kInt})
                              : tensor(path, "weight", {rows, columns}, {c10::kChar});
    m.scales = scales(path, rows, G);
    if (!m.format.symmetric)
      m.zero_points = m.format.packed ? tensor(path, "weight_zero_point", {words_for(rows, bits), G}, {c10::kInt})
                                      : tensor(path, "weight_zero_point", {rows, G}, {c10::kChar});
    if (weights_.contains(path + ".weight_shape")) check_shape(path, rows, columns);
    return std::make_shared<IntegerWeight>(device.is_cpu() ? m : m.to(device));
  }

 private:
  void find_modules() {
    static constexpr const char* kParts[] = {".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape"};
    for (const auto& [name, entry] : weights_) {
      for (const char* part :
           {".weight_g_idx", ".input_scale", ".input_zero_point", ".output_scale", ".weight_global_scale"})
        if (name.ends_with(part)) refuse_scheme(where_, "a tensor '" + name + "'");
      for (const std::string part : kParts)
        if (name.ends_with(part)) modules_[name.substr(0, name.size() - part.size())].insert(name);
      if (name.ends_with(".weight") && entry.tensor->dtype == io::DType::i8)
        modules_[name.substr(0, name.size() - std::string(".weight").size())].insert(name);
    }
  }

  at::Tensor tensor(const std::string& path, const char* part, std::vector<int64_t> shape,
                    std::initializer_list<c10::ScalarType> types) const {
    const std::string name = path + "." + part;
    const auto found = weights_.find(name);
    if (found == weights_.end())
      throw Error(Exit::file, {.what = "tensor '" + name + "' is missing",
                               .where = where_,
                               .hint = "the folder is not whole: fetch it again, or quantize the model once more"});
    const auto& info = *found->second.tensor;
    const c10::ScalarType type = io::to_scalar_type(info.dtype);
    if (info.shape != shape || std::ranges::find(types, type) == types.end()) {
      const auto text = [](c10::ScalarType t, const std::vector<int64_t>& s) {
        return detail::concat(t, " ", c10::IntArrayRef(s));
      };
      throw Error(Exit::file, {.what = "tensor '" + name + "' does not fit its matrix",
                               .where = found->second.file->path().string(),
                               .got = text(type, info.shape),
                               .expected = text(*types.begin(), shape)});
    }
    return io::tensor_view(found->second);
  }

  /// One scale of a whole matrix (strategy "tensor") becomes one per row.
  at::Tensor scales(const std::string& path, int64_t rows, int64_t groups) const {
    static constexpr auto kTypes = {c10::kBFloat16, c10::kHalf, c10::kFloat};
    const auto found = weights_.find(path + ".weight_scale");
    if (found != weights_.end() && groups == 1 && rows > 1 && found->second.tensor->count() == 1)
      return tensor(path, "weight_scale", found->second.tensor->shape, kTypes)
          .view({1, 1})
          .expand({rows, 1})
          .contiguous();
    return tensor(path, "weight_scale", {rows, groups}, kTypes);
  }

  void check_shape(const std::string& path, int64_t rows, int64_t columns) const {
    const at::Tensor shape = tensor(path, "weight_shape", {2}, {c10::kLong, c10::kInt}).to(c10::kLong);
    if (shape[0].item<int64_t>() != rows || shape[1].item<int64_t>() != columns)
      throw Error(Exit::file, {.what = "tensor '" + path + ".weight_shape' says another shape than config.json",
                               .where = where_,
                               .got = detail::concat(shape[0].item<int64_t>(), " x ", shape[1].item<int64_t>()),
                               .expected = detail::concat(rows, " x ", columns)});
  }

  std::string where_;
  std::map<std::string, io::WeightFiles::Entry> weights_;
  std::vector<SchemeGroup> groups_;
  std::vector<Pattern> ignore_;
  std::map<std::string, std::set<std::string>> modules_;
};

}  // namespace

io::NamedTensors integer_tensors(const std::string& path, const IntegerMatrix& m) {
  io::NamedTensors tensors = {{path + (m.format.packed ? ".weight_packed" : ".weight"), m.codes},
                              {path + ".weight_scale", m.scales}};
  if (m.zero_points.defined()) tensors.emplace_back(path + ".weight_zero_point", m.zero_points);
  if (m.format.packed) tensors.emplace_back(path + ".weight_shape", at::tensor({m.rows, m.columns}, at::kLong));
  return tensors;
}

std::vector<io::TensorInfo> integer_infos(const std::string& path, const IntegerFormat& format, int64_t rows,
                                          int64_t columns, c10::ScalarType scale_dtype) {
  const int64_t groups = IntegerMatrix{.format = format, .rows = rows, .columns = columns}.groups();
  const bool packed = format.packed;
  std::vector<io::TensorInfo> infos = {
      packed ? io::TensorInfo{path + ".weight_packed", io::DType::i32, {rows, words_for(columns, format.bits)}}
             : io::TensorInfo{path + ".weight", io::DType::i8, {rows, columns}},
      {path + ".weight_scale", io::to_dtype(scale_dtype), {rows, groups}}};
  if (!format.symmetric)
    infos.push_back(
        packed ? io::TensorInfo{path + ".weight_zero_point", io::DType::i32, {words_for(rows, format.bits), groups}}
               : io::TensorInfo{path + ".weight_zero_point", io::DType::i8, {rows, groups}});
  if (packed) infos.push_back({path + ".weight_shape", io::DType::i64, {2}});
  return infos;
}

io::Json compressed_tensors_config(const std::vector<SchemeGroup>& groups, const std::vector<std::string>& ignore,
                                   bool actorder) {
  io::Json json = {{"quant_method", "compressed-tensors"}, {"quantization_status", "compressed"}};
  std::set<std::string> formats;
  io::Json config_groups = io::Json::object();
  for (const SchemeGroup& group : groups) {
    io::Json targets = io::Json::array();
    for (const Pattern& target : group.targets) targets.push_back(target.text());
    const IntegerFormat& format = group.scheme.format;
    formats.insert(format_name(format));
    config_groups["group_" + std::to_string(config_groups.size())] = {
        {"targets", targets},
        {"weights", weight_arguments(format, actorder)},
        {"input_activations", format.dynamic_activations ? dynamic_arguments() : io::Json()},
        {"output_activations", nullptr},
        {"format", format_name(format)}};
  }
  json["format"] = formats.size() == 1 ? *formats.begin() : "mixed-precision";
  json["config_groups"] = config_groups;
  json["ignore"] = ignore;
  json["kv_cache_scheme"] = nullptr;
  return json;
}

std::unique_ptr<nn::StorageReader> open_compressed_tensors(const io::Json& config, const io::WeightFiles& weights,
                                                           const std::string& where) {
  return std::make_unique<CompressedTensors>(config, weights, where);
}

}  // namespace llmtk::quant
