#include "io/json.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/file.h"

namespace llmtk::io {
namespace {

constexpr size_t kMaxDepth = 64;

/// A value on one line, cut to a length that fits a message.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr size_t kMost = 60;
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

/// The parser's events: what the library accepts and this program doesn't.
struct KeyCheck : nlohmann::json_sax<SortedJson> {
  std::string where;
  std::vector<std::set<std::string>> open;  // the keys of the objects, and nothing for the arrays, that are open now

  bool enter() {
    open.emplace_back();
    if (open.size() > kMaxDepth)
      throw Error(Exit::file, {.what = "JSON is nested too deep", .where = where, .expected = "at most 64 levels"});
    return true;
  }
  bool leave() {
    open.pop_back();
    return true;
  }
  bool start_object(size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool start_array(size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool key(std::string& name) override {
    if (open.back().insert(name).second) return true;
    throw Error(Exit::file, {.what = "key '" + name + "' is given twice", .where = where});
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override { return false; }
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(int64_t) override { return true; }
  bool number_unsigned(uint64_t) override { return true; }
  bool number_float(double, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(SortedJson::binary_t&) override { return true; }
};

}  // namespace

template <class J>
J parse_json(std::string_view text, const std::string& where) {
  try {
    // Twice: the library's parser is linear, but no longer with a callback that watches the keys.
    KeyCheck check;
    check.where = where;
    SortedJson::sax_parse(text, &check);
    return J::parse(text);
  } catch (const Json::exception& error) {
    std::string reason = error.what();
    if (const auto bracket = reason.find("] "); bracket != std::string::npos) reason = reason.substr(bracket + 2);
    throw Error(Exit::file, {.what = "not valid JSON: " + reason, .where = where});
  }
}

template Json parse_json<Json>(std::string_view, const std::string&);
template SortedJson parse_json<SortedJson>(std::string_view, const std::string&);

Json read_json(const std::filesystem::path& path) { return parse_json(read_file(path), path.string()); }

void write_json(const std::filesystem::path& path, const Json& json) { write_file_atomic(path, json.dump(2) + "\n"); }

ObjectReader::ObjectReader(const Json& object, std::string where, const TypedKeys* typed)
    : object_(object), where_(std::move(where)), typed_(typed) {
  if (typed_ && typed_->contains("")) exit_ = Exit::usage;
  if (!object_.is_object())
    throw Error(Exit::file,
                {.what = "unexpected content", .where = where_, .got = shown(object_), .expected = "a JSON object"});
}

const Json* ObjectReader::find(const std::string& key) {
  read_.insert(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool ObjectReader::has(const std::string& key) const {
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

void ObjectReader::fail(const std::string& key, const std::string& expected, const std::string& hint) const {
  Error::Parts parts{.where = where_, .expected = expected, .hint = hint};
  const bool typed = typed_ && typed_->contains(prefix_ + key);
  const Exit exit = typed ? Exit::usage : exit_;
  if (typed) parts.where = typed_->at(prefix_ + key);
  const auto found = object_.find(key);
  const bool missing = found == object_.end() || found->is_null();
  // A file's place says where in it the object is; a place in a config does not.
  parts.what = "key '" + (exit == Exit::usage ? prefix_ : "") + key +
               (missing ? "' is missing" : "' has a value that cannot be used");
  if (!missing) parts.got = shown(*found);
  throw Error(exit, std::move(parts));
}

int64_t ObjectReader::integer(const std::string& key, int64_t least, int64_t most) {
  const std::string expected =
      "an integer of at least " + std::to_string(least) + " and at most " + std::to_string(most);
  const Json* value = find(key);
  if (!value || !value->is_number_integer()) fail(key, expected);
  // An unsigned number above int64's range would come out negative.
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) fail(key, expected);
  if (value->get<int64_t>() < least || value->get<int64_t>() > most) fail(key, expected);
  return value->get<int64_t>();
}

int64_t ObjectReader::integer_or(const std::string& key, int64_t otherwise, int64_t least) {
  return find(key) ? integer(key, least) : otherwise;
}

double ObjectReader::number(const std::string& key) {
  const Json* value = find(key);
  if (!value || !value->is_number() || !std::isfinite(value->get<double>())) fail(key, "a number");
  return value->get<double>();
}

double ObjectReader::number_or(const std::string& key, double otherwise) { return find(key) ? number(key) : otherwise; }

std::vector<double> ObjectReader::positive_numbers(const std::string& key, size_t count) {
  const std::string expected = "a list of " + std::to_string(count) + " numbers above 0";
  const Json* value = find(key);
  if (!value || !value->is_array() || value->size() != count) fail(key, expected);
  for (const Json& one : *value)
    if (!one.is_number() || !std::isfinite(one.get<double>()) || one.get<double>() <= 0) fail(key, expected);
  return value->get<std::vector<double>>();
}

std::vector<std::string> ObjectReader::strings(const std::string& key) {
  const Json* value = find(key);
  if (!value || !value->is_array() || !std::ranges::all_of(*value, [](const Json& one) { return one.is_string(); }))
    fail(key, "a list of strings");
  return value->get<std::vector<std::string>>();
}

double ObjectReader::probability_or(const std::string& key, double otherwise) {
  const double value = number_or(key, otherwise);
  if (value < 0 || value >= 1) fail(key, "a number from 0 to below 1");
  return value;
}

bool ObjectReader::boolean_or(const std::string& key, bool otherwise) {
  const Json* value = find(key);
  if (!value) return otherwise;
  if (!value->is_boolean()) fail(key, "true or false");
  return value->get<bool>();
}

std::string ObjectReader::string(const std::string& key) {
  const Json* value = find(key);
  if (!value || !value->is_string()) fail(key, "a string");
  return value->get<std::string>();
}

std::string ObjectReader::string_or(const std::string& key, const std::string& otherwise) {
  return find(key) ? string(key) : otherwise;
}

std::optional<ObjectReader> ObjectReader::object(const std::string& key) {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_object()) fail(key, "a JSON object");
  ObjectReader inner(*value, where_ + ": " + key, typed_);
  inner.prefix_ = prefix_ + key + ".";
  if (typed_ && typed_->contains(prefix_ + key)) {
    inner.where_ = typed_->at(prefix_ + key);
    inner.exit_ = Exit::usage;
  }
  return inner;
}

void ObjectReader::only(const std::string& key, const Json& supported, const std::string& hint) {
  const Json* value = find(key);
  if (value && *value != supported) fail(key, shown(supported) + ", the only value supported", hint);
}

void ObjectReader::ignore(std::initializer_list<const char*> keys) {
  for (const char* key : keys) read_.insert(key);
}

std::vector<std::string> ObjectReader::unread() const {
  std::vector<std::string> keys;
  for (const auto& item : object_.items())
    if (!read_.contains(item.key())) keys.push_back(item.key());
  return keys;
}

}  // namespace llmtk::io
