#pragma once
// YAML <-> plain structs. A config struct lists its fields once,
//
//   struct OptimizerConfig {
//     double learning_rate = 3e-4;
//     std::vector<double> betas = {0.9, 0.95};
//     std::string type = "adamw";
//     template <class V> void fields(V& v) {
//       v("learning_rate", learning_rate, "Peak learning rate", config::above(0));
//       v("betas", betas, "Adam's decay rates of the two moments", config::count(2), config::between(0, 1));
//       v("type", type, "Optimizer", config::one_of({"adamw", "sgd"}));
//     }
//     void validate(config::Problems& problems) const;  // optional: rules over several fields
//   };
//
// and that list drives reading, `key=value` overrides, error messages, help, the resolved config and the JSON Schema.
// A member is a bool, int64_t, double, std::string, another such struct (a section), or a std::vector, std::optional or
// std::map<std::string, ...> of them; or a nlohmann::ordered_json, which takes any value. Relative paths in a config are plain strings, relative to the current folder.

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/type.h"

namespace llmtk::config {

/// Reads the file at `path`, then the overrides ("optimizer.learning_rate=1e-4", "data.sources.0.path=a.txt"; the value
/// is YAML; an index one past the end of a list appends). Keys not given keep the struct's defaults. Throws
/// Error(usage) that lists everything wrong with the file and the overrides, each with file:line:column or the
/// argument, and leaves nothing ignored: an unknown key is an error.
template <class T>
T load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {}) {
  T config;
  detail::load_file(path, overrides, detail::type_of<T>(), &config);
  return config;
}

/// The same from a text; `name` stands for the file in messages.
template <class T>
T parse(std::string_view yaml, const std::string& name, const std::vector<std::string>& overrides = {}) {
  T config;
  detail::load_text(yaml, name, overrides, detail::type_of<T>(), &config);
  return config;
}

/// Every field with its value, defaults included, in the order of the field lists: a nlohmann::ordered_json (include its
/// header to use it).
template <class T>
auto to_json(const T& config) {
  return detail::to_json(detail::type_of<T>(), &config);
}

/// The same as YAML. Reading it gives an equal struct, down to the last bit of every number.
template <class T>
std::string dump(const T& config) {
  return detail::dump(detail::type_of<T>(), &config);
}

/// JSON Schema (draft 2020-12) for editors: types, ranges, choices, defaults, help; unknown keys are not allowed.
template <class T>
std::string json_schema(const std::string& title = "llmtk config") {
  const T defaults;
  return detail::json_schema(detail::type_of<T>(), &defaults, title);
}

/// A table of all keys for --help: name, type and range, default, what it does.
template <class T>
std::string help() {
  const T defaults;
  return detail::help(detail::type_of<T>(), &defaults);
}

}  // namespace llmtk::config
