#include "adapters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>

#include "core/error.h"
#include "io/model_folder.h"
#include "peft/adapter_folder.h"
#include "peft/methods.h"

namespace llmtk {

namespace fs = std::filesystem;

namespace {

/// What stands behind the equals sign.
double parse_weight(const std::string& spec, size_t equals, const std::string& where) {
  double weight = 0;
  const char *begin = spec.data() + equals + 1, *end = spec.data() + spec.size();
  const auto [stop, error] = std::from_chars(begin, end, weight);
  if (error == std::errc() && stop == end && std::isfinite(weight)) return weight;
  throw Error(Exit::usage, {.what = "an adapter's weight is no number",
                            .where = where,
                            .got = "'" + spec + "'",
                            .expected = "a number behind the last ="});
}

peft::AdapterSource parse_adapter(const std::string& spec) {
  const size_t equals = spec.rfind('=');
  if (equals == std::string::npos || std::filesystem::exists(spec)) return {.folder = spec};
  return {.folder = spec.substr(0, equals), .weight = parse_weight(spec, equals, "--adapter")};
}

}  // namespace

std::filesystem::path adapter_folder(const std::string& spec) { return parse_adapter(spec).folder; }

void expect_adapters(models::LoadOptions& load, const std::filesystem::path& base,
                     const std::vector<std::string>& specs) {
  for (const std::string& spec : specs) {
    const peft::AdapterTask task = peft::read_task(adapter_folder(spec));
    if (task.num_labels == 0 || load.head) continue;
    if (task.task_type == "SEQ_CLS") load.head = nn::Head::sequence_classification;
    if (task.task_type == "TOKEN_CLS") load.head = nn::Head::token_classification;
    if (!load.head) continue;
    io::Json labels = task.id2label;
    if (labels.is_null()) labels = io::read_model_config(base).value("id2label", io::Json());
    if (!labels.is_object() || labels.size() != static_cast<size_t>(task.num_labels)) {
      labels = io::Json::object();
      for (int64_t i = 0; i < task.num_labels; ++i) labels[std::to_string(i)] = "LABEL_" + std::to_string(i);
    }
    load.overrides["id2label"] = labels;
    load.overrides["num_labels"] = task.num_labels;
    if (!task.pad_token_id.is_null()) load.overrides["pad_token_id"] = task.pad_token_id;
  }
}

namespace {

/// The adapters on the model; none of another method, whose folder is then `fixed`.
std::vector<peft::Adapter> put_on(nn::Model& model, const std::vector<std::string>& specs, std::string& fixed) {
  std::vector<peft::AdapterSource> sources;
  for (const std::string& spec : specs) {
    sources.push_back(parse_adapter(spec));
    if (!peft::is_method_folder(sources.back().folder)) continue;
    if (specs.size() > 1 || sources.back().weight != 1)
      throw Error(Exit::usage, {.what = "an adapter that is not LoRA's has neither a weight nor others beside it",
                                .where = "--adapter",
                                .got = specs.size() > 1 ? std::to_string(specs.size()) + " adapters" : spec,
                                .expected = sources.back().folder.string() + " alone"});
    peft::load_method(model, sources.back().folder);
    fixed = sources.back().folder.string();
    return {};
  }
  return peft::load_adapters(model, sources);
}

/// "runs/poems/" -> "poems"
std::string last_part(const fs::path& folder) {
  const fs::path name = folder.lexically_normal();
  return (name.has_filename() ? name : name.parent_path()).filename().string();
}

}  // namespace

void add_adapters(nn::Model& model, const std::vector<std::string>& specs) {
  std::string fixed;
  put_on(model, specs, fixed);
}

AdapterSwitch::AdapterSwitch(nn::Model& model, const std::vector<std::string>& specs) {
  auto adapters = put_on(model, specs, fixed_);
  std::map<std::string, int> uses;
  for (const std::string& spec : specs) ++uses[last_part(adapter_folder(spec))];
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto [folder, weight] = parse_adapter(specs[i]);
    const std::string name = last_part(folder);
    loaded_.push_back({uses[name] == 1 ? name : folder.string(), std::move(adapters[i]), weight, weight});
  }
}

size_t AdapterSwitch::find(const std::string& name, const std::string& where) const {
  std::string names;
  for (size_t i = 0; i < loaded_.size(); ++i) {
    if (loaded_[i].name == name) return i;
    names += (i ? ", " : "") + loaded_[i].name;
  }
  throw Error(Exit::usage, {.what = "no adapter of this name is loaded",
                            .where = where,
                            .got = "'" + name + "'",
                            .expected = names.empty() ? "none: no LoRA was given with --adapter" : names});
}

bool AdapterSwitch::choose(const std::vector<std::string>& choice, const std::string& where) {
  if (!fixed_.empty())
    throw Error(Exit::usage, {.what = "only LoRA's adapters can be switched",
                              .where = where,
                              .got = fixed_,
                              .hint = "start again with or without it"});
  std::vector<double> weights(loaded_.size(), 0);
  for (const std::string& word : choice) {
    const bool is_name = std::ranges::find(loaded_, word, &Loaded::name) != loaded_.end();
    const size_t equals = is_name ? std::string::npos : word.rfind('=');
    const size_t i = find(word.substr(0, equals), where);
    weights[i] = equals == std::string::npos ? loaded_[i].given : parse_weight(word, equals, where);
  }
  return set_weights(weights, where);
}

bool AdapterSwitch::choose_all() {
  std::vector<double> weights;
  for (const Loaded& one : loaded_) weights.push_back(one.given);
  return set_weights(weights, "--adapter");
}

/// Either all of them or none.
bool AdapterSwitch::set_weights(const std::vector<double>& weights, const std::string& where) {
  bool changes = false;
  for (size_t i = 0; i < loaded_.size(); ++i) {
    const Loaded& one = loaded_[i];
    if (weights[i] == one.weight) continue;
    changes = true;
    const bool rebuilt = one.adapter.config().is_pissa();
    if (rebuilt || !one.adapter.own_parameters().empty())
      throw Error(Exit::usage, {.what = "this adapter changed the model itself, and cannot be weighted or taken away",
                                .where = where,
                                .got = one.name,
                                .hint = rebuilt ? "save it in peft with path_initial_model_for_weight_conversion"
                                                : "start again with or without it"});
  }
  for (size_t i = 0; i < loaded_.size(); ++i) {
    loaded_[i].adapter.set_weight(weights[i]);
    loaded_[i].weight = weights[i];
  }
  return changes;
}

std::string AdapterSwitch::listing() const {
  if (loaded_.empty()) return fixed_.empty() ? "no adapter is loaded" : "* " + fixed_;
  std::string text;
  for (const Loaded& one : loaded_) {
    char weight[32];
    std::snprintf(weight, sizeof weight, "%g", one.weight == 0 ? one.given : one.weight);
    text += (text.empty() ? "" : "\n") + std::string(one.weight == 0 ? "  " : "* ") + one.name + "=" + weight;
  }
  return text;
}

}  // namespace llmtk
