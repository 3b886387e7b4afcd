#include "models/registry.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "core/device.h"
#include "core/error.h"
#include "core/suggest.h"
#include "models/gpt2.h"
#include "models/llama.h"
#include "models/openai_gpt.h"

namespace llmtk::models {
namespace {

struct Family {
  const char* model_type;
  std::shared_ptr<nn::CausalModel> (*make)(const io::Json& config, const std::string& where, const nn::Build& build);
  std::optional<std::string> (*parameter_name)(const std::string& name);
  std::map<std::string, io::Json> (*presets)();
};

constexpr Family kFamilies[] = {
    {"gpt2", make_gpt2, gpt2_parameter_name, gpt2_presets},
    {"llama", make_llama, llama_parameter_name, llama_presets},
    {"openai-gpt", make_openai_gpt, openai_gpt_parameter_name, openai_gpt_presets},
};

std::string joined(const std::vector<std::string>& names, size_t most = 8) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), most); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > most) text += " and " + std::to_string(names.size() - most) + " more";
  return text;
}

const Family* find_family(const std::string& model_type) {
  const auto found = std::ranges::find(kFamilies, model_type, &Family::model_type);
  return found == std::end(kFamilies) ? nullptr : found;
}

const Family& family_of(const io::Json& config, const std::string& where, const io::TypedKeys* typed = nullptr) {
  io::ObjectReader reader(config, where, typed);
  if (const Family* family = find_family(reader.string("model_type"))) return *family;
  reader.fail("model_type", joined(model_types()));
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

c10::ScalarType stored_dtype(const io::Json& config, const io::WeightFiles& weights, const std::string& where) {
  for (const char* key : {"dtype", "torch_dtype"})
    if (const auto found = config.find(key); found != config.end() && found->is_string()) {
      try {
        return parse_dtype(found->get<std::string>());
      } catch (const Error& error) {
        throw Error(Exit::file, {.what = "key '" + std::string(key) + "' has a value that cannot be used",
                                 .where = where,
                                 .got = error.parts().got,
                                 .expected = error.parts().expected});
      }
    }
  for (const auto& [name, entry] : weights.tensors()) {
    const c10::ScalarType type = io::to_scalar_type(entry.tensor->dtype);
    if (type == c10::kFloat || type == c10::kBFloat16 || type == c10::kHalf) return type;
  }
  return c10::kFloat;
}

}  // namespace

std::vector<std::string> model_types() {
  std::vector<std::string> types;
  for (const Family& family : kFamilies) types.emplace_back(family.model_type);
  return types;
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies)
    for (const auto& [name, config] : family.presets()) names.push_back(name);
  return names;
}

io::Json preset(const std::string& name) {
  for (const Family& family : kFamilies) {
    auto presets = family.presets();
    if (const auto found = presets.find(name); found != presets.end()) return found->second;
  }
  const std::string near = nearest(name, preset_names());
  throw Error(Exit::usage, {.what = "unknown model shape",
                            .got = "'" + name + "'",
                            .expected = joined(preset_names(), 100),
                            .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
}

std::shared_ptr<nn::CausalModel> make(const io::Json& config, const std::string& where, const nn::Build& build) {
  return family_of(config, where, build.typed_keys).make(config, where, build);
}

std::shared_ptr<nn::CausalModel> create(const io::Json& config, const nn::Build& build, uint64_t seed,
                                        const std::string& where) {
  auto model = make(config, where, build);
  model->initialize(seed);
  return model;
}

namespace {

/// A tied head need not be in the files; where it is, it must be the table.
void check_tied_head(nn::CausalModel& model, const io::WeightFiles::Entry& head, const std::string& where) {
  const at::Tensor stored = io::tensor_view(head), tied = model.lm_head().weight;
  if (stored.sizes() == tied.sizes() && stored.to(tied.options()).equal(tied)) return;
  throw Error(Exit::file, {.what = "tensor 'lm_head.weight' differs from the table it is tied to",
                           .where = where,
                           .hint = "if the head is its own matrix, set tie_word_embeddings to false in config.json"});
}

}  // namespace

bool is_buffer(const std::string& model_type, const std::string& name) {
  const Family* family = find_family(model_type);
  return family && !family->parameter_name(name);
}

void load_weights(nn::CausalModel& model, const io::WeightFiles& weights, const std::string& where, bool map) {
  const at::NoGradGuard no_grad;
  const Family& family = family_of(model.config(), where);
  auto parameters = model.named_parameters();
  std::map<std::string, io::WeightFiles::Entry> stored;
  std::vector<std::string> extra, missing;
  std::optional<io::WeightFiles::Entry> tied_head;
  for (const auto& [name, entry] : weights.tensors()) {
    const auto parameter = family.parameter_name(name);
    if (!parameter) continue;
    if (parameters.contains(*parameter)) {
      if (!stored.emplace(*parameter, entry).second)
        throw Error(Exit::file, {.what = "two tensors for parameter '" + *parameter + "'", .where = where});
    } else if (*parameter == "lm_head.weight") {
      tied_head = entry;
    } else {
      extra.push_back(name);
    }
  }
  for (const auto& parameter : parameters)
    if (!stored.contains(parameter.key())) missing.push_back(parameter.key());
  if (!missing.empty()) throw Error(Exit::file, {.what = "tensors are missing: " + joined(missing), .where = where});
  if (!extra.empty())
    throw Error(Exit::file, {.what = "tensors that this model does not have: " + joined(extra), .where = where});

  for (auto& parameter : parameters) {
    const io::WeightFiles::Entry& entry = stored.at(parameter.key());
    at::Tensor& target = parameter.value();
    if (target.sizes() != entry.tensor->shape)
      throw Error(Exit::file, {.what = "tensor '" + entry.tensor->name + "' has another shape than config.json says",
                               .where = entry.file->path().string(),
                               .got = shape_text(entry.tensor->shape),
                               .expected = shape_text(target.sizes())});
    if (!c10::isFloatingType(io::to_scalar_type(entry.tensor->dtype)))
      throw Error(Exit::file, {.what = "tensor '" + entry.tensor->name + "' does not hold floating-point numbers",
                               .where = entry.file->path().string(),
                               .got = std::string(io::dtype_tag(entry.tensor->dtype))});
    const at::Tensor view = io::tensor_view(entry);
    if (map && view.options().type_equal(target.options()))
      target.set_data(view);
    else
      target.copy_(view);
  }
  if (tied_head) check_tied_head(model, *tied_head, where);
}

std::shared_ptr<nn::CausalModel> load(const std::string& path_or_name, const LoadOptions& options) {
  const fs::path folder = io::find_model(path_or_name);
  const io::Json config = io::read_model_config(folder);
  const std::string where = (folder / "config.json").string();
  const Family& family = family_of(config, where);
  const io::WeightFiles weights(folder);
  const auto dtype = options.dtype ? *options.dtype : stored_dtype(config, weights, where);
  auto model = family.make(config, where, {dtype, options.device});
  load_weights(*model, weights, folder.string(), options.map);
  model->eval();
  return model;
}

std::vector<io::WrittenFile> save(const nn::CausalModel& model, const fs::path& folder, const SaveOptions& options) {
  fs::create_directories(folder);
  io::NamedTensors tensors;
  for (const auto& parameter : model.named_parameters()) tensors.emplace_back(parameter.key(), parameter.value());
  auto written = io::save_weights(folder, tensors, options.max_shard_bytes);

  io::Json config = model.config();
  config.erase("torch_dtype");
  config["dtype"] = dtype_name(model.dtype());
  io::write_json(folder / "config.json", config);
  if (options.companions) io::copy_companion_files(*options.companions, folder);
  if (!fs::exists(folder / "generation_config.json")) {
    io::Json generation = io::Json::object();
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
      if (config.contains(key) && !config[key].is_null()) generation[key] = config[key];
    io::write_json(folder / "generation_config.json", generation);
  }
  return written;
}

}  // namespace llmtk::models
