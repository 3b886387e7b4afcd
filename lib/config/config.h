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
// std::map<std::string, ...> of them; or a nlohmann::ordered_json, which takes any value. Relative paths in a config
// are plain strings, relative to the current folder.

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

/// Where the keys of a config were given, for what turns out wrong after it was read.
struct Places {
  std::string file;
  std::map<std::string, std::string> keys;  ///< "trainer.device": "my.yaml:12:3", or the override; of what was given

  /// The place of a key or, where it was not given, of the nearest thing around it that was; else the file.
  std::string of(const std::string& key) const;
  /// The keys below a section, without its name, each with its place.
  std::map<std::string, std::string> below(const std::string& section) const;
};

/// Several things wrong with one config. what() has them all, parts() only says how many.
class InvalidConfig : public Error {
 public:
  InvalidConfig(const std::string& file, std::vector<Parts> problems);
  const char* what() const noexcept override { return message_.c_str(); }
  const std::vector<Parts>& problems() const { return problems_; }

 private:
  std::vector<Parts> problems_;
  std::string message_;
};

/// Reads the file at `path`, then the overrides ("optimizer.learning_rate=1e-4", "data.sources.0.path=a.txt"; the value
/// is YAML; an index one past the end of a list appends). Keys not given keep the struct's defaults. Throws
/// Error(usage) that lists everything wrong with the file and the overrides, each with file:line:column or the
/// argument (InvalidConfig where there are several), and leaves nothing ignored: an unknown key is an error. `places`
/// learns where each key was given.
template <class T>
T load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {}, Places* places = nullptr) {
  T config;
  detail::load_file(path, overrides, detail::type_of<T>(), &config, places);
  return config;
}

/// The same from a text; `name` stands for the file in messages.
template <class T>
T parse(std::string_view yaml, const std::string& name, const std::vector<std::string>& overrides = {},
        Places* places = nullptr) {
  T config;
  detail::load_text(yaml, name, overrides, detail::type_of<T>(), &config, places);
  return config;
}

/// Every field with its value, defaults included, in the order of the field lists: a nlohmann::ordered_json (include
/// its header to use it).
template <class T>
auto to_json(const T& config) {
  return detail::to_json(detail::type_of<T>(), &config);
}

/// The same as YAML. Reading it gives an equal struct, down to the last bit of every number.
template <class T>
std::string dump(const T& config) {
  return detail::dump(detail::type_of<T>(), &config);
}

/// Gives every key that `json`, made by to_json() when T had fewer fields, lacks its default: a nlohmann::ordered_json.
template <class T>
void add_defaults(nlohmann::ordered_json& json) {
  const T defaults;
  detail::add_defaults(detail::type_of<T>(), &defaults, json);
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
