#include "text/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "core/utf8.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

constexpr int kMaxDepth = 200;

int checked_depth(int depth) {
  if (depth > kMaxDepth) throw TemplateError{.what = "values are nested deeper than " + std::to_string(kMaxDepth)};
  return depth;
}

int depth_over(const std::vector<Value>& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.depth());
  return checked_depth(deepest + 1);
}

Kind key_kind(const Value& key) {
  const Kind kind = key.kind();
  if (kind == Kind::list || kind == Kind::dict)
    throw TemplateError{.what = "unhashable type: '" + type_name(key) + "'"};
  return kind;
}

}  // namespace

Work::Level::Level(Work& work) : work_(work) {
  checked_depth(work.levels_ + 1);
  ++work.levels_;
}

void Work::exhausted() {
  left_ = 0;
  throw TemplateError{.what = "rendering takes too many steps or too much memory",
                      .hint = "a template that a model comes with takes a small part of what is allowed"};
}

// --- Value ---

Value::Value(Dict dict) {
  checked_depth(dict.depth());
  data_ = std::make_shared<const Dict>(std::move(dict));
}

Value Value::undefined(std::string message) {
  Value value;
  value.data_ = std::make_shared<const Undefined>(Undefined{std::move(message)});
  return value;
}

Value Value::markup(std::string text) {
  Value value;
  value.data_ = std::make_shared<const String>(String{std::move(text), true});
  return value;
}

Value Value::list(std::vector<Value> items) {
  const int depth = depth_over(items);
  Value value;
  value.data_ = std::make_shared<const Sequence>(Sequence{std::move(items), false, depth});
  return value;
}

Value Value::tuple(std::vector<Value> items) {
  const int depth = depth_over(items);
  Value value;
  value.data_ = std::make_shared<const Sequence>(Sequence{std::move(items), true, depth});
  return value;
}

Kind Value::kind() const {
  constexpr Kind kinds[] = {Kind::none,   Kind::undefined, Kind::boolean, Kind::integer, Kind::number,
                            Kind::string, Kind::list,      Kind::dict,    Kind::object};
  const Kind kind = kinds[data_.index()];
  if (kind == Kind::list && std::get<std::shared_ptr<const Sequence>>(data_)->tuple) return Kind::tuple;
  return kind;
}

const std::string& Value::undefined_message() const {
  return std::get<std::shared_ptr<const Undefined>>(data_)->message;
}

int64_t Value::integral() const {
  if (const bool* boolean = std::get_if<bool>(&data_)) return *boolean;
  return std::get<int64_t>(data_);
}

double Value::numeric() const {
  if (const double* number = std::get_if<double>(&data_)) return *number;
  return static_cast<double>(integral());
}

int Value::depth() const {
  switch (kind()) {
    case Kind::list:
    case Kind::tuple:
      return std::get<std::shared_ptr<const Sequence>>(data_)->depth;
    case Kind::dict:
      return dict().depth();
    case Kind::object:
      return object().depth();
    default:
      return 0;
  }
}

bool Value::same_as(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::list:
    case Kind::tuple:
      return std::get<std::shared_ptr<const Sequence>>(data_) == std::get<std::shared_ptr<const Sequence>>(other.data_);
    case Kind::dict:
      return &dict() == &other.dict();
    case Kind::object:
      return &object() == &other.object();
    case Kind::string:
      return text() == other.text();
    case Kind::undefined:
      return std::get<std::shared_ptr<const Undefined>>(data_) ==
             std::get<std::shared_ptr<const Undefined>>(other.data_);
    default:
      return data_ == other.data_;
  }
}

// --- Dict ---

const size_t* Dict::index_of(std::string_view key) const {
  const auto found = strings_.find(key);
  return found == strings_.end() ? nullptr : &found->second;
}

const Value* Dict::find(std::string_view key) const {
  const size_t* index = index_of(key);
  return index ? &items_[*index].second : nullptr;
}

const Value* Dict::find(const Value& key, Work& work) const {
  if (key_kind(key) == Kind::string) return find(key.text());
  for (const size_t index : others_) {
    work.spend();
    if (equal(items_[index].first, key, work)) return &items_[index].second;
  }
  return nullptr;
}

void Dict::append(Value key, Value value) {
  depth_ = std::max({depth_, value.depth() + 1, key.depth() + 1});
  if (key.is_string())
    strings_.emplace(key.text(), items_.size());
  else
    others_.push_back(items_.size());
  items_.emplace_back(std::move(key), std::move(value));
}

void Dict::set(std::string key, Value value) {
  if (const size_t* index = index_of(key)) {
    depth_ = std::max(depth_, value.depth() + 1);
    items_[*index].second = std::move(value);
  } else {
    append(Value(std::move(key)), std::move(value));
  }
}

void Dict::set(Value key, Value value, Work& work) {
  work.spend();
  if (const Value* there = find(key, work)) {
    depth_ = std::max(depth_, value.depth() + 1);
    *const_cast<Value*>(there) = std::move(value);  // of this dict, which is being filled
  } else {
    append(std::move(key), std::move(value));
  }
}

// --- Object ---

Object::Object(int depth) : depth_(checked_depth(depth)) {}

std::string Object::repr(Work&) const { return "<" + std::string(type_name()) + " object>"; }

std::optional<Value> Object::attribute(std::string_view) { return std::nullopt; }

Value Object::call(Runtime&, Arguments&) {
  throw TemplateError{.what = "'" + std::string(type_name()) + "' object is not callable"};
}

// --- what Python's built-in functions say of values ---

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
      return "int";
    case Kind::number:
      return "float";
    case Kind::string:
      return value.is_markup() ? "Markup" : "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return "tuple";
    case Kind::dict:
      return "dict";
    case Kind::object:
      break;
  }
  return std::string(value.object().type_name());
}

bool truth(const Value& value) {
  switch (value.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
      return value.boolean();
    case Kind::integer:
    case Kind::number:
      return value.numeric() != 0;
    case Kind::string:
      return !value.text().empty();
    case Kind::list:
    case Kind::tuple:
      return !value.items().empty();
    case Kind::dict:
      return value.dict().size() > 0;
    case Kind::object:
      break;
  }
  return value.object().truth();
}

std::string repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (text.starts_with('-')) {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t digits_of_exponent = e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(text.data() + digits_of_exponent, text.data() + text.size(), exponent);
  std::string digits;
  for (const char c : text.substr(0, e))
    if (c != '.') digits += c;
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    const std::string number = std::to_string(std::abs(exponent));
    return out + (exponent < 0 ? "e-" : "e+") + (number.size() < 2 ? "0" : "") + number;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return out + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
         digits.substr(static_cast<size_t>(exponent) + 1);
}

std::string repr(std::string_view text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const int32_t c = next_code_point(text, i);
    char escaped[16] = "";
    if (c == quote || c == '\\')
      std::snprintf(escaped, sizeof escaped, "\\%c", static_cast<char>(c));
    else if (c == '\n' || c == '\r' || c == '\t')
      std::snprintf(escaped, sizeof escaped, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
    else if (!is_printable(c))
      std::snprintf(escaped, sizeof escaped,
                    c < 0x100     ? "\\x%02x"
                    : c < 0x10000 ? "\\u%04x"
                                  : "\\U%08x",
                    static_cast<unsigned>(c));
    if (*escaped)
      out += escaped;
    else
      out += text.substr(begin, i - begin);
  }
  return out + quote;
}

namespace {

std::string repr_items(const std::vector<Value>& items, Work& work) {
  std::string out;
  for (const Value& item : items) {
    if (!out.empty()) out += ", ";
    out += repr(item, work);
  }
  return out;
}

std::string repr_dict(const Dict& dict, Work& work) {
  std::string out;
  for (const auto& [key, value] : dict.items()) {
    if (!out.empty()) out += ", ";
    out += repr(key, work) + ": " + repr(value, work);
  }
  return "{" + out + "}";
}

}  // namespace

std::string repr(const Value& value, Work& work) {
  work.spend();
  const Work::Level level(work);
  switch (value.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "None";
    case Kind::boolean:
      return value.boolean() ? "True" : "False";
    case Kind::integer:
      return std::to_string(value.integral());
    case Kind::number:
      return repr(value.numeric());
    case Kind::string: {
      work.spend_bytes(value.text().size());
      const std::string text = repr(value.text());
      return value.is_markup() ? "Markup(" + text + ")" : text;
    }
    case Kind::list:
      return "[" + repr_items(value.items(), work) + "]";
    case Kind::tuple:
      return "(" + repr_items(value.items(), work) + (value.items().size() == 1 ? ",)" : ")");
    case Kind::dict:
      return repr_dict(value.dict(), work);
    case Kind::object:
      break;
  }
  return value.object().repr(work);
}

std::string str(const Value& value, Work& work) {
  if (value.is_undefined()) return {};
  if (!value.is_string()) return repr(value, work);
  work.spend_bytes(value.text().size());
  return value.text();
}

}  // namespace llmtk::text::jinja
