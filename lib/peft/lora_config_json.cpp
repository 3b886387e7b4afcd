// LoraConfig <-> adapter_config.json.

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "peft/adapter_folder.h"
#include "peft/lora_config.h"

namespace llmtk::peft {
namespace {

io::Json number(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? io::Json(static_cast<int64_t>(value)) : io::Json(value);
}

io::Json or_null(const std::string& text) { return text.empty() ? io::Json(nullptr) : io::Json(text); }

template <class T>
io::Json list_or_null(const std::vector<T>& list) {
  return list.empty() ? io::Json(nullptr) : io::Json(list);
}

io::Json init_word(const std::string& init) {
  return init == "true" || init == "false" ? io::Json(init == "true") : io::Json(init);
}

// Keys that say where an adapter comes from or how it began, and nothing of what it computes.
constexpr const char* kHarmless[] = {
    "auto_mapping", "base_model_name_or_path", "corda_config",  "eva_config",   "fan_in_fan_out", "inference_mode",
    "loftq_config", "lora_ga_config",          "megatron_core", "peft_type",    "peft_version",   "qalora_group_size",
    "revision",     "runtime_config",          "task_type",     "velora_config"};

bool is_off(const io::Json& value) {
  return value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
         ((value.is_object() || value.is_array()) && value.empty());
}

template <class T>
std::map<std::string, T> read_pattern(io::ObjectReader& reader, const io::Json& json, const char* key) {
  std::map<std::string, T> patterns;
  const bool given = reader.has(key);
  reader.ignore({key});
  if (!given) return patterns;
  if (!json[key].is_object()) reader.fail(key, "an object: names to numbers");
  for (const auto& [name, value] : json[key].items()) {
    if (!value.is_number() || value.template get<double>() <= 0)
      reader.fail(key, "an object: names to numbers above 0");
    patterns[name] = value.template get<T>();
  }
  return patterns;
}

/// One element, or a list of them.
template <class T, class Is>
std::vector<T> read_some(io::ObjectReader& reader, const io::Json& json, const char* key, const char* expected, Is is) {
  const bool given = reader.has(key);
  reader.ignore({key});
  if (!given) return {};
  const io::Json list = json[key].is_array() ? json[key] : io::Json::array({json[key]});
  if (!std::ranges::all_of(list, is)) reader.fail(key, expected);
  return list.get<std::vector<T>>();
}

io::Json read_modules(io::ObjectReader& reader, const io::Json& json, const char* key) {
  const bool given = reader.has(key);
  reader.ignore({key});
  if (!given) return nullptr;
  if (!ModuleNames::from_json(json[key])) reader.fail(key, "a list of names, or one regular expression");
  return json[key];
}

std::string read_init(io::ObjectReader& reader, const io::Json& json) {
  const char* key = "init_lora_weights";
  const bool given = reader.has(key);
  reader.ignore({key});
  if (!given) return "true";
  if (json[key].is_boolean()) return json[key].get<bool>() ? "true" : "false";
  if (!json[key].is_string()) reader.fail(key, "true, false or a word");
  const auto word = json[key].get<std::string>();
  if (word.starts_with("pissa_niter_"))
    reader.fail(
        key, "another start",
        "the base that this adapter was trained on came from a randomized SVD and cannot be found again: save it "
        "in peft with path_initial_model_for_weight_conversion");
  for (const char* changes_base : {"corda", "olora", "lora_ga", "mica"})
    if (word == changes_base)
      reader.fail(
          key, "another start",
          "it changes the base's matrices: save the adapter in peft with path_initial_model_for_weight_conversion");
  return word == "pissa" || word == "gaussian" ? word : "true";  // the others' start is over
}

void refuse_others(const io::ObjectReader& reader, const io::Json& json) {
  for (const std::string& key : reader.unread())
    if (!is_off(json[key]))
      throw Error(Exit::file, {.what = "setting '" + key + "' of peft changes what is computed and is not known here",
                               .where = reader.where(),
                               .got = json[key].dump()});
}

}  // namespace

io::Json to_adapter_config(const LoraConfig& c, const AdapterIdentity& identity) {
  io::Json alphas = io::Json::object();
  for (const auto& [name, alpha] : c.alpha_pattern) alphas[name] = number(alpha);
  return {{"alora_invocation_tokens", nullptr},
          {"alpha_pattern", alphas},
          {"arrow_config", nullptr},
          {"auto_mapping", nullptr},
          {"base_model_name_or_path", or_null(identity.base_model_name_or_path)},
          {"bias", c.bias},
          {"corda_config", nullptr},
          {"ensure_weight_tying", false},
          {"eva_config", nullptr},
          {"exclude_modules", c.exclude_modules},
          {"fan_in_fan_out", identity.fan_in_fan_out},
          {"inference_mode", true},
          {"init_lora_weights", init_word(c.init_lora_weights)},
          {"kasa_config", nullptr},
          {"layer_replication", nullptr},
          {"layers_pattern", list_or_null(c.layers_pattern)},
          {"layers_to_transform", list_or_null(c.layers_to_transform)},
          {"loftq_config", io::Json::object()},
          {"lora_alpha", number(c.lora_alpha)},
          {"lora_bias", false},
          {"lora_dropout", c.lora_dropout},
          {"lora_ga_config", nullptr},
          {"megatron_config", nullptr},
          {"megatron_core", "megatron.core"},
          {"modules_to_save", list_or_null(c.modules_to_save)},
          {"monteclora_config", nullptr},
          {"peft_type", "LORA"},
          {"peft_version", kPeftVersion},
          {"qalora_group_size", 16},
          {"r", c.r},
          {"rank_pattern", io::Json(c.rank_pattern)},
          {"revision", nullptr},
          {"target_modules", c.target_modules},
          {"target_parameters", nullptr},
          {"task_type", or_null(identity.task_type)},
          {"trainable_token_indices", nullptr},
          {"use_bdlora", nullptr},
          {"use_dora", c.use_dora},
          {"use_qalora", false},
          {"use_rslora", c.use_rslora},
          {"velora_config", nullptr}};
}

LoraConfig lora_config_from(const io::Json& json, const std::string& where) {
  io::ObjectReader reader(json, where);
  if (const std::string type = reader.string("peft_type"); type != "LORA")
    throw Error(Exit::file,
                {.what = "the adapter is of another kind", .where = where, .got = type, .expected = "LORA"});
  LoraConfig c;
  c.r = reader.integer("r");
  c.lora_alpha = reader.number("lora_alpha");
  c.lora_dropout = reader.probability_or("lora_dropout", 0);
  c.target_modules = read_modules(reader, json, "target_modules");
  c.exclude_modules = read_modules(reader, json, "exclude_modules");
  c.bias = reader.string_or("bias", "none");
  if (c.bias != "none" && c.bias != "all" && c.bias != "lora_only") reader.fail("bias", "none, all or lora_only");
  const auto is_text = [](const io::Json& one) { return one.is_string(); };
  const auto is_layer = [](const io::Json& one) { return one.is_number_integer() && one.get<int64_t>() >= 0; };
  c.modules_to_save = read_some<std::string>(reader, json, "modules_to_save", "a list of names", is_text);
  c.layers_to_transform = read_some<int64_t>(reader, json, "layers_to_transform", "layers' numbers", is_layer);
  c.layers_pattern = read_some<std::string>(reader, json, "layers_pattern", "a name, or a list of names", is_text);
  c.rank_pattern = read_pattern<int64_t>(reader, json, "rank_pattern");
  c.alpha_pattern = read_pattern<double>(reader, json, "alpha_pattern");
  c.use_rslora = reader.boolean_or("use_rslora", false);
  c.use_dora = reader.boolean_or("use_dora", false);
  c.init_lora_weights = read_init(reader, json);
  for (const char* key : kHarmless) reader.ignore({key});
  refuse_others(reader, json);
  return c;
}

}  // namespace llmtk::peft
