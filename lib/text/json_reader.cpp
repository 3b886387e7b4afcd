#include "text/json_reader.h"

#include <algorithm>

#include "core/error.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

namespace llmtk::text {

Json parse_json(const std::string& text, const std::string& where) {
  try {
    return Json::parse(text);
  } catch (const Json::out_of_range& e) {  // a number of 1e999
    throw Error(Exit::file, {.what = std::string("JSON with a number that is too large: ") + e.what(), .where = where});
  } catch (const Json::parse_error& e) {
    const size_t at = std::min<size_t>(e.byte > 0 ? e.byte - 1 : 0, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n');
    const size_t start = at == 0 ? std::string::npos : text.rfind('\n', at - 1);
    const size_t column = at - (start == std::string::npos ? 0 : start + 1) + 1;
    std::string reason = e.what();
    if (const size_t colon = reason.rfind(": "); colon != std::string::npos) reason = reason.substr(colon + 2);
    throw Error(Exit::file, {.what = "not valid JSON: " + reason,
                             .where = where + ":" + std::to_string(line) + ":" + std::to_string(column),
                             .hint = "is the file whole?"});
  }
}

std::string shown(const Json& value) {
  // What is nested could be so deep that writing it overflows the stack.
  if (value.is_structured() && std::ranges::any_of(value, [](const Json& inner) { return inner.is_structured(); }))
    return (value.is_array() ? "a list of " : "an object of ") + std::to_string(value.size());
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

JsonObject::JsonObject(const Json& value, std::string where, std::string path)
    : value_(value), where_(std::move(where)), path_(std::move(path)) {
  if (!value.is_object()) fail("wrong type", shown(value), "an object");
}

const Json* JsonObject::find(const char* key) {
  seen_.insert(key);
  const auto it = value_.find(key);
  return it == value_.end() || it->is_null() ? nullptr : &*it;
}

const Json& JsonObject::need(const char* key) {
  const Json* value = find(key);
  if (!value) fail(std::string("the key '") + key + "' is missing");
  return *value;
}

bool JsonObject::flag(const char* key, bool otherwise) {
  const Json* value = find(key);
  if (!value) return otherwise;
  if (!value->is_boolean()) fail(std::string("wrong type of '") + key + "'", shown(*value), "true or false");
  return value->get<bool>();
}

std::string JsonObject::string(const char* key) {
  const Json& value = need(key);
  if (!value.is_string()) fail(std::string("wrong type of '") + key + "'", shown(value), "a string");
  return value.get<std::string>();
}

std::string JsonObject::character(const char* key) {
  const std::string text = string(key);
  if (text.empty() || decode_utf8(text.data(), text.data() + text.size()).size != text.size())
    fail(std::string("wrong '") + key + "'", shown(text), "one character");
  return text;
}

const Json& JsonObject::list(const char* key) {
  const Json& value = need(key);
  if (!value.is_array()) fail(std::string("wrong type of '") + key + "'", shown(value), "a list");
  return value;
}

size_t JsonObject::count(const char* key) {
  const Json& value = need(key);
  if (!value.is_number_unsigned()) fail(std::string("wrong type of '") + key + "'", shown(value), "a whole number");
  return value.get<size_t>();
}

void JsonObject::unsupported(const std::string& role, const std::string& type, const std::string& known) const {
  fail("the " + role + " '" + type + "' is not supported", {}, known);
}

void JsonObject::finish() const {
  for (const auto& [key, value] : value_.items())
    if (!seen_.contains(key)) fail("'" + key + "' is not supported here", shown(value));
}

void JsonObject::fail(const std::string& what, const std::string& got, const std::string& expected) const {
  throw Error(Exit::file,
              {.what = (path_.empty() ? "" : path_ + ": ") + what, .where = where_, .got = got, .expected = expected});
}

int32_t read_id(const Json& value, const std::string& where, const std::string& path) {
  if (value.is_number_integer()) {
    const auto id = value.get<int64_t>();
    if (id >= 0 && id <= Vocabulary::kMaxId) return static_cast<int32_t>(id);
  }
  throw Error(Exit::file, {.what = path + ": not a token's id",
                           .where = where,
                           .got = shown(value),
                           .expected = "a whole number from 0 to " + std::to_string(Vocabulary::kMaxId)});
}

}  // namespace llmtk::text
