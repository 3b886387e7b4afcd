#include <nlohmann/json.hpp>

#include "config/config.h"
#include "config/scalar.h"

namespace llmtk::config::detail {
namespace {

using Json = nlohmann::ordered_json;

std::string scalar(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  if (value.is_number_float()) return format_number(value.get<double>());
  if (value.is_number()) return std::to_string(value.get<int64_t>());
  return format_text(value.get_ref<const std::string&>());
}

bool is_leaf(const Json& value) { return !value.is_structured() || value.empty(); }

/// What stands on the line of the key: a scalar, or a list of scalars.
std::string leaf(const Json& value) {
  if (value.is_object()) return "{}";
  if (!value.is_array()) return scalar(value);
  std::string text = "[";
  for (const Json& item : value) text += (text.size() > 1 ? ", " : "") + scalar(item);
  return text + "]";
}

void write(const Json& value, const std::string& indent, bool first_line_is_begun, std::string& out) {
  if (value.is_array()) {
    for (const Json& item : value) {
      out += (first_line_is_begun ? "" : indent) + "- ";
      first_line_is_begun = false;
      if (is_leaf(item)) {
        out += leaf(item) + "\n";
      } else {
        write(item, indent + "  ", true, out);
      }
    }
    return;
  }
  for (const auto& [key, item] : value.items()) {
    out += (first_line_is_begun ? "" : indent) + format_text(key) + ":";
    first_line_is_begun = false;
    const bool flat_list =
        item.is_array() && std::all_of(item.begin(), item.end(), [](const Json& i) { return !i.is_structured(); });
    if (is_leaf(item) || flat_list) {
      out += " ";
      out += leaf(item) + "\n";
    } else {
      out += "\n";
      write(item, indent + "  ", false, out);
    }
  }
}

}  // namespace

Json to_json(const Type& type, const void* object) {
  void* member = const_cast<void*>(object);  // fields() is written once, without const; nothing is changed through it
  switch (type.kind) {
    case Kind::boolean:
      return *static_cast<const bool*>(object);
    case Kind::integer:
      return *static_cast<const int64_t*>(object);
    case Kind::number:
      return *static_cast<const double*>(object);
    case Kind::text:
      return *static_cast<const std::string*>(object);
    case Kind::any:
      return *static_cast<const Json*>(object);
    case Kind::optional:
      return type.size(object) ? to_json(*type.element, type.at(member, 0)) : Json();
    case Kind::section: {
      Json json = Json::object();
      for (const Field& field : type.fields(member)) json[field.name] = to_json(*field.type, field.member);
      return json;
    }
    case Kind::list: {
      Json json = Json::array();
      for (size_t i = 0; i < type.size(object); ++i) json.push_back(to_json(*type.element, type.at(member, i)));
      return json;
    }
    case Kind::map: {
      Json json = Json::object();
      for (size_t i = 0; i < type.size(object); ++i)
        json[type.key(object, i)] = to_json(*type.element, type.at(member, i));
      return json;
    }
  }
  return Json();
}

void add_defaults(const Type& type, const void* defaults, Json& json) {
  if (type.kind == Kind::section && json.is_object()) {
    for (const Field& field : type.fields(const_cast<void*>(defaults))) {
      if (json.contains(field.name))
        add_defaults(*field.type, field.member, json[field.name]);
      else
        json[field.name] = to_json(*field.type, field.member);
    }
  } else if (type.element && json.is_structured()) {
    const auto element = type.element->make();
    if (type.kind == Kind::optional) return add_defaults(*type.element, element.get(), json);
    for (Json& item : json) add_defaults(*type.element, element.get(), item);
  }
}

std::string dump(const Type& type, const void* object) {
  const Json json = to_json(type, object);
  std::string text;
  write(json, "", false, text);
  return json.empty() ? "{}\n" : text;
}

}  // namespace llmtk::config::detail
