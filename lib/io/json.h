#pragma once
// JSON files, and the reading of one object's keys with errors that name file and key.

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace llmtk::io {

using Json = nlohmann::ordered_json;
/// Keys sorted: found in logarithmic time, where objects may have very many.
using SortedJson = nlohmann::json;

/// Parses JSON. Throws Error(file) naming `where` and the place in the text; a key given twice in one object, and
/// nesting deeper than 64, are errors too.
template <class J = Json>
J parse_json(std::string_view text, const std::string& where);
Json read_json(const std::filesystem::path& path);
/// Indented by two, one newline at the end, atomically.
void write_json(const std::filesystem::path& path, const Json& json);

/// Keys of an object that a user typed in a config, each with its place ("my.yaml:12:3"): what is wrong with them is
/// said there, as a usage error. A nested object's keys are "outer.inner"; an entry "" says that no file is behind the
/// others.
using TypedKeys = std::map<std::string, std::string>;

/// Reads the keys of one JSON object, such as config.json: every error names the file and the key. A key whose value is
/// null counts as absent, as Hugging Face's configs mean it. Remembers what was asked for, so that the rest can be
/// named.
class ObjectReader {
 public:
  /// Throws Error(file) unless `object` is a JSON object. `object` and `typed` must outlive the reader. Where this
  /// class says Error(file), it is Error(usage) for typed keys.
  ObjectReader(const Json& object, std::string where, const TypedKeys* typed = nullptr);

  bool has(const std::string& key) const;
  /// Whether the key is there, null or not.
  bool mentions(const std::string& key) const { return object_.contains(key); }
  /// Beyond this a product of two sizes of a model would overflow.
  static constexpr int64_t kMostSize = int64_t{1} << 31;
  /// The value, or Error(file) where it is absent, of another type, below `least` or above `most`.
  int64_t integer(const std::string& key, int64_t least = 1, int64_t most = kMostSize);
  int64_t integer_or(const std::string& key, int64_t otherwise, int64_t least = 0);
  double number(const std::string& key);
  double number_or(const std::string& key, double otherwise);
  /// A list of `count` numbers above 0.
  std::vector<double> positive_numbers(const std::string& key, size_t count);
  /// A list of strings.
  std::vector<std::string> strings(const std::string& key);
  /// A share: a number in [0, 1).
  double probability_or(const std::string& key, double otherwise);
  bool boolean_or(const std::string& key, bool otherwise);
  std::string string(const std::string& key);
  std::string string_or(const std::string& key, const std::string& otherwise);
  /// A nested object's reader; nullopt when absent.
  std::optional<ObjectReader> object(const std::string& key);
  /// Throws Error(file) where the key is given with another value than the only one this program computes with.
  void only(const std::string& key, const Json& supported, const std::string& hint = {});
  /// Marks keys as known and without influence on what is computed.
  void ignore(std::initializer_list<const char*> keys);
  /// Keys that nobody asked for.
  std::vector<std::string> unread() const;
  /// Keys that somebody asked for, whether they are given or not.
  std::vector<std::string> known() const { return {read_.begin(), read_.end()}; }

  [[noreturn]] void fail(const std::string& key, const std::string& expected, const std::string& hint = {}) const;
  const std::string& where() const { return where_; }

 private:
  const Json* find(const std::string& key);

  const Json& object_;
  std::string where_;
  const TypedKeys* typed_;
  Exit exit_ = Exit::file;  // of keys that nobody typed
  std::string prefix_;      // of a nested object's keys among the typed ones
  std::set<std::string> read_;
};

}  // namespace llmtk::io
