#pragma once
// Reading the JSON of tokenizer files so that every complaint names the file and the place in it.

#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace llmtk::text {

using Json = nlohmann::json;

/// Throws Error(file) with line and column where `text` is not JSON.
Json parse_json(const std::string& text, const std::string& where);

/// One object of the file. Keys that nobody asked for are an error at finish(), so that nothing is ignored silently.
class JsonObject {
 public:
  /// `path` is the place in the file, "pre_tokenizer.pretokenizers[0]".
  JsonObject(const Json& value, std::string where, std::string path);

  /// Null where the key is missing or null.
  const Json* find(const char* key);
  const Json& need(const char* key);
  bool flag(const char* key, bool otherwise);
  std::string string(const char* key);
  /// A string of one character.
  std::string character(const char* key);
  std::string type() { return string("type"); }
  /// A list.
  const Json& list(const char* key);
  /// A whole number of 0 or more.
  size_t count(const char* key);
  /// Counts a key as read whose value does not matter to the ids.
  void skip(const char* key) { seen_.insert(key); }
  void finish() const;

  const std::string& where() const { return where_; }
  std::string at(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }
  /// Of a section whose type is not one of `known`.
  [[noreturn]] void unsupported(const std::string& role, const std::string& type, const std::string& known) const;
  [[noreturn]] void fail(const std::string& what, const std::string& got = {}, const std::string& expected = {}) const;

 private:
  const Json& value_;
  std::string where_, path_;
  std::set<std::string> seen_;
};

/// An id: a whole number from 0 to Vocabulary::kMaxId. Throws Error(file).
int32_t read_id(const Json& value, const std::string& where, const std::string& path);

/// A value for a message, cut short.
std::string shown(const Json& value);

}  // namespace llmtk::text
