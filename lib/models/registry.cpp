#include "models/registry.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <map>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/suggest.h"
#include "models/bert.h"
#include "models/gemma2.h"
#include "models/gemma3_text.h"
#include "models/gguf.h"
#include "models/gpt2.h"
#include "models/gpt_neox.h"
#include "models/llama.h"
#include "models/mistral.h"
#include "models/openai_gpt.h"
#include "models/opt.h"
#include "models/qwen2.h"
#include "models/qwen3.h"
#include "models/roberta.h"
#include "models/sequence_classifier.h"
#include "models/t5.h"

namespace llmtk::models {
namespace {

struct Family {
  const char* model_type;
  MakeModel make_language_model;  // or an encoder
  std::optional<std::string> (*parameter_name)(const std::string& name);
  std::map<std::string, io::Json> (*presets)();
  ClassifierNames classifier;             // of decoders and encoder-decoders
  const EncoderNames* encoder = nullptr;  // of encoders, which stand with one head or another

  std::shared_ptr<nn::Model> make(const io::Json& config, const std::string& where, const nn::Build& build) const {
    return !encoder && is_classifier(config, classifier)
               ? make_classifier(classifier, make_language_model, config, where, build)
               : make_language_model(config, where, build);
  }
  bool is_head_tensor(const std::string& name) const {
    return encoder ? encoder->is_head_tensor(name) : is_decoder_head_tensor(name);
  }
  std::string base_prefix() const { return encoder ? encoder->base_prefix : classifier.base_prefix; }
};

constexpr Family kFamilies[] = {
    {"bert", make_bert, bert_parameter_name, bert_presets, {}, &kBertNames},
    {"gemma2", make_gemma2, gemma_parameter_name, gemma2_presets, {"Gemma2ForSequenceClassification", 0}},
    {"gemma3_text",
     make_gemma3_text,
     gemma3_parameter_name,
     gemma3_text_presets,
     {"Gemma3TextForSequenceClassification", 0}},
    {"gpt2", make_gpt2, gpt2_parameter_name, gpt2_presets, {"GPT2ForSequenceClassification"}},
    {"gpt_neox", make_gpt_neox, gpt_neox_parameter_name, gpt_neox_presets, {"GPTNeoXForSequenceClassification"}},
    {"llama", make_llama, llama_parameter_name, llama_presets, {"LlamaForSequenceClassification"}},
    {"mistral", make_mistral, llama_parameter_name, mistral_presets, {"MistralForSequenceClassification"}},
    {"openai-gpt",
     make_openai_gpt,
     openai_gpt_parameter_name,
     openai_gpt_presets,
     {"OpenAIGPTForSequenceClassification"}},
    {"opt", make_opt, opt_parameter_name, opt_presets, {"OPTForSequenceClassification", 1}},
    {"qwen2", make_qwen2, llama_parameter_name, qwen2_presets, {"Qwen2ForSequenceClassification"}},
    {"qwen3", make_qwen3, llama_parameter_name, qwen3_presets, {"Qwen3ForSequenceClassification"}},
    {"roberta", make_roberta, roberta_parameter_name, roberta_presets, {}, &kRobertaNames},
    {"t5", make_t5, t5_parameter_name, t5_presets, {"T5ForSequenceClassification", 0, "transformer."}},
    {"xlm-roberta", make_xlm_roberta, roberta_parameter_name, xlm_roberta_presets, {}, &kXlmRobertaNames},
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

io::Json language_part(io::Json config, const std::string& where) {
  const auto type = config.find("model_type");
  if (type == config.end() || *type != kGemma3WithPictures) return config;
  log::info(where + ": the language part is used alone: pictures are not read");
  return gemma3_language_part(config, where);
}

std::shared_ptr<nn::Model> make_model(const io::Json& json, const std::string& where, const nn::Build& build) {
  const io::Json config = language_part(json, where);
  return family_of(config, where, build.typed_keys).make(config, where, build);
}

void refuse_kind(const nn::Model& model, const char* expected, const std::string& where) {
  throw Error(Exit::usage, {.what = "this command does not work with models of this kind",
                            .where = where,
                            .got = model.config().value("model_type", "") + ", " + model.kind(),
                            .expected = expected});
}

namespace {

/// Whether a stored tensor is the one that it is tied to.
bool same_as(const at::Tensor& tied, const io::WeightFiles::Entry& entry) {
  const at::Tensor stored = io::tensor_view(entry);
  return stored.sizes() == tied.sizes() && stored.to(tied.options()).equal(tied);
}

}  // namespace

bool is_buffer(const std::string& model_type, const std::string& name) {
  const Family* family = find_family(model_type);
  return family && !family->parameter_name(name);
}

namespace {

using Tensors = std::map<std::string, io::WeightFiles::Entry>;  // of files, by name

/// Which tensor of the files is which parameter.
struct Matched {
  std::map<std::string, io::WeightFiles::Entry> stored, again;  // the parameters'; what is tied to one
  std::vector<std::string> extra, missing, other_heads, buffers, renamed;
};

/// The parameter that a tensor of a file means, as the family calls it. nullopt: not a weight.
std::optional<std::string> parameter_name(const std::string& name, const Family& family) {
  return !family.encoder && is_decoder_head_tensor(name) && !name.starts_with("lm_head.") ? name
                                                                                          : family.parameter_name(name);
}

/// How the model calls what the files call `name`: an encoder's tensors have a prefix where a head stands on it, and
/// files come with and without.
std::string name_in_model(const std::string& name, const Family& family, const auto& knows) {
  const std::string prefix = family.base_prefix();
  if (prefix.empty() || knows(name)) return name;
  const std::string other = name.starts_with(prefix) ? name.substr(prefix.size()) : prefix + name;
  return knows(other) ? other : name;
}

/// another_head: the files are of a model with another head than `model` has, so a classifier in them is not its own.
Matched match(nn::Model& model, const Family& family, const Tensors& tensors, bool another_head,
              const std::string& where) {
  Matched matched;
  const auto parameters = model.named_parameters();
  auto tied = model.tied_names();
  std::erase_if(tied, [](const auto& item) { return !item.second.defined(); });  // to a table that is quantized
  const bool has_a_choice = family.encoder || model.head() == nn::Head::sequence_classification;
  const auto knows = [&](const std::string& name) { return parameters.contains(name) || tied.contains(name); };
  for (const auto& [stored_name, entry] : tensors) {
    const auto parameter = parameter_name(stored_name, family);
    if (!parameter) {
      matched.buffers.push_back(stored_name);
      continue;
    }
    const std::string name = name_in_model(*parameter, family, knows);
    if (name != stored_name) matched.renamed.push_back(stored_name);
    const bool of_a_head = has_a_choice && family.is_head_tensor(name);
    const bool of_a_classifier = name.starts_with("classifier.") || name.starts_with("score.");
    if (of_a_head && (!knows(name) || (another_head && of_a_classifier))) {
      matched.other_heads.push_back(stored_name);
    } else if (parameters.contains(name)) {
      if (!matched.stored.emplace(name, entry).second)
        throw Error(Exit::file, {.what = "two tensors for parameter '" + name + "'", .where = where});
    } else if (tied.contains(name)) {
      matched.again.emplace(name, entry);
    } else {
      matched.extra.push_back(stored_name);
    }
  }
  for (const auto& parameter : parameters)
    if (!matched.stored.contains(parameter.key())) matched.missing.push_back(parameter.key());
  return matched;
}

void check_shape(const at::Tensor& target, const io::WeightFiles::Entry& entry) {
  if (target.sizes() != entry.tensor->shape)
    throw Error(Exit::file, {.what = "tensor '" + entry.tensor->name + "' has another shape than config.json says",
                             .where = entry.file->path().string(),
                             .got = shape_text(entry.tensor->shape),
                             .expected = shape_text(target.sizes())});
}

void fill(at::Tensor& target, const io::WeightFiles::Entry& entry, bool map) {
  check_shape(target, entry);
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

/// What a head needs and the files lack: the pooler of an encoder alone is done without; where the task asks for
/// another head than the files are of, it starts at random.
void complete_head(nn::Model& model, const Family& family, Matched& matched,
                   const std::optional<uint64_t>& seed_of_head, const std::string& where) {
  std::vector<std::string> drawn, without;
  auto parameters = model.named_parameters();
  std::erase_if(matched.missing, [&](const std::string& name) {
    if (!family.is_head_tensor(name)) return false;
    if (model.head() == nn::Head::none) {
      dynamic_cast<nn::EncoderModel&>(model).remove_pooler();
      without.push_back(name);
      return true;
    }
    if (!seed_of_head) return false;
    model.initialize_parameter(name, parameters[name], *seed_of_head);
    drawn.push_back(name);
    return true;
  });
  if (!without.empty()) log::info(where + ": no pooler, as these files lack " + joined(without));
  const auto class_name = model.config().at("architectures").at(0).get<std::string>();
  if (!drawn.empty())
    log::warn(where + ": " + class_name + " needs what these files lack; random weights for " + joined(drawn) +
              ": train it before its answers mean anything");
  if (!matched.other_heads.empty())
    log::info(where + ": left out, as " + class_name + " has no place for it: " + joined(matched.other_heads));
}

/// seed_of_head: set where another head was asked for than the files are of.
void read_weights(nn::Model& model, const Tensors& tensors, const std::string& where, bool map,
                  const std::optional<uint64_t>& seed_of_head) {
  const at::NoGradGuard no_grad;
  const Family& family = family_of(model.config(), where);
  Matched matched = match(model, family, tensors, seed_of_head.has_value(), where);
  if (!matched.buffers.empty())
    log::info(where + ": left out, as nothing here computes with it: " + joined(matched.buffers, 3));
  if (!matched.renamed.empty()) log::info(where + ": read by their newer names: " + joined(matched.renamed, 3));
  complete_head(model, family, matched, seed_of_head, where);
  if (!matched.missing.empty())
    throw Error(Exit::file, {.what = "tensors are missing: " + joined(matched.missing), .where = where});
  if (!matched.extra.empty())
    throw Error(Exit::file,
                {.what = "tensors that this model does not have: " + joined(matched.extra), .where = where});
  auto parameters = model.named_parameters();
  for (auto& [name, entry] : matched.stored) fill(parameters[name], entry, map);
  const auto tied = model.tied_names();
  for (const auto& [name, entry] : matched.again) {
    if (same_as(tied.at(name), entry)) continue;
    if (!model.untie(name))
      throw Error(Exit::file,
                  {.what = "tensor '" + name + "' differs from the table it is tied to",
                   .where = where,
                   .hint = "if it is a matrix of its own, set tie_word_embeddings to false in config.json"});
    fill(model.named_parameters()[name], entry, map);
  }
}

/// Puts the storages of quantized matrices into the model. Returns the tensors that are left.
Tensors read_storages(nn::Model& model, const nn::StorageReader& reader, const io::WeightFiles& weights,
                      const std::string& where) {
  const Family& family = family_of(model.config(), where);
  Tensors left = weights.tensors();
  const auto parameters = model.named_parameters();
  const auto modules = model.named_modules();
  const auto knows = [&](const std::string& name) { return parameters.contains(name); };
  for (const auto& [stored_path, names] : reader.modules()) {
    for (const std::string& name : names) left.erase(name);
    const auto parameter = parameter_name(stored_path + ".weight", family);
    const std::string name = parameter ? name_in_model(*parameter, family, knows) : "";
    const std::string path = knows(name) ? name.substr(0, name.size() - std::string(".weight").size()) : "";
    const auto* module = modules.find(path);
    const auto shape = module ? nn::storage_shape(**module) : std::nullopt;
    if (!shape)
      throw Error(Exit::file, {.what = "quantized tensors of a module that this model does not have: " + stored_path,
                               .where = where});
    const bool is_table = dynamic_cast<const nn::Embedding*>(module->get());
    nn::set_storage(model, **module, reader.read(stored_path, shape->first, shape->second, is_table, model.device()));
  }
  return left;
}

/// What a storage holds is no parameter: it would be missing from the files.
void refuse_quantized(const nn::Model& model) {
  for (const auto& item : model.named_modules()) {
    const auto* layer = dynamic_cast<const nn::Linear*>(item.value().get());
    const auto* table = dynamic_cast<const nn::Embedding*>(item.value().get());
    if ((layer && layer->storage()) || (table && table->storage()))
      throw Error(Exit::usage, {.what = "a model whose '" + item.key() + "' is quantized cannot be saved whole",
                                .hint = "save what was trained on it, and merge that into the model as it was"});
  }
}

}  // namespace

bool choose_head(io::Json& config, nn::Head head, const std::string& where) {
  const Family& family = family_of(config, where);
  if (!family.encoder && head != nn::Head::sequence_classification)
    throw Error(Exit::usage, {.what = "this command does not work with models of this kind",
                              .where = where,
                              .got = family.model_type,
                              .expected = nn::EncoderModel::kKind});
  const std::string name = family.encoder ? family.encoder->class_name(head) : family.classifier.class_name;
  const io::Json wanted = io::Json::array({name});
  return std::exchange(config["architectures"], wanted) != wanted;
}

void load_weights(nn::Model& model, const io::WeightFiles& weights, const std::string& where, bool map,
                  const std::optional<uint64_t>& seed_of_head) {
  read_weights(model, weights.tensors(), where, map, seed_of_head);
}

std::shared_ptr<nn::Model> load_model(const std::string& path_or_name, const LoadOptions& options) {
  const fs::path folder = io::find_model(path_or_name);
  if (io::is_gguf_path(folder) && !fs::is_directory(folder)) {
    if (options.head)
      throw Error(Exit::usage, {.what = "a GGUF file has its language model's head alone",
                                .where = folder.string(),
                                .hint = "make a folder of it with llmtk convert"});
    return load_gguf(folder, options);
  }
  const std::string where = (folder / "config.json").string();
  io::Json config = language_part(io::read_model_config(folder), where);
  const Family& family = family_of(config, where);
  const bool another_head = options.head && choose_head(config, *options.head, where);
  for (const auto& [key, value] : options.overrides.items()) config[key] = value;
  const io::WeightFiles weights(folder);
  std::unique_ptr<nn::StorageReader> storages;
  if (const auto quantization = config.find("quantization_config"); options.storages && quantization != config.end() && !quantization->is_null()) {
    storages = options.storages(*quantization, weights, where);
    config.erase("quantization_config");
  }
  const auto dtype = options.dtype ? *options.dtype : stored_dtype(config, weights, where);
  const auto make = [&](c10::Device device) { return family.make(config, where, {dtype, device}); };
  std::shared_ptr<nn::Model> model;
  try {
    model = make(options.device);
  } catch (const std::exception& e) {  // no memory for it? Perhaps the config asks for more than the files hold.
    const auto* error = dynamic_cast<const Error*>(&e);
    if ((error && error->exit() != Exit::runtime) || storages) throw;
    const auto shapes = make(c10::kMeta);
    auto parameters = shapes->named_parameters();
    for (const auto& [name, entry] : match(*shapes, family, weights.tensors(), another_head, where).stored)
      check_shape(parameters[name], entry);
    throw;
  }
  const Tensors tensors =
      storages ? read_storages(*model, *storages, weights, folder.string()) : weights.tensors();
  read_weights(*model, tensors, folder.string(), options.map,
               another_head ? std::optional(options.seed) : std::nullopt);
  model->eval();
  return model;
}

void save_config(const nn::Model& model, const fs::path& folder, c10::ScalarType dtype, const SaveOptions& options,
                 const io::Json& more) {
  io::Json config = model.config();
  config.erase("torch_dtype");
  config["dtype"] = dtype_name(dtype);
  config.update(more);
  io::write_json(folder / "config.json", config);
  if (options.companions) io::copy_companion_files(*options.companions, folder);
  const bool generates = model.head() == nn::Head::causal_lm || model.head() == nn::Head::seq2seq_lm;
  if (generates && !fs::exists(folder / "generation_config.json")) {
    io::Json generation = io::Json::object();
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"})
      if (config.contains(key) && !config[key].is_null()) generation[key] = config[key];
    io::write_json(folder / "generation_config.json", generation);
  }
}

std::vector<io::WrittenFile> save(const nn::Model& model, const fs::path& folder, const SaveOptions& options) {
  refuse_quantized(model);
  fs::create_directories(folder);
  io::NamedTensors tensors;
  for (const auto& parameter : model.named_parameters()) tensors.emplace_back(parameter.key(), parameter.value());
  auto written = io::save_weights(folder, tensors, options.max_shard_bytes);
  save_config(model, folder, model.dtype(), options);
  return written;
}

}  // namespace llmtk::models
