#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "config/config.h"
#include "config/scalar.h"
#include "core/utf8.h"

namespace llmtk::config::detail {
namespace {

using Json = nlohmann::ordered_json;

std::string bound(double value) {
  std::string text = format_number(value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string range(const Rules& rules) {
  const bool has_low = std::isfinite(rules.low), has_high = std::isfinite(rules.high);
  if (has_low && has_high && !rules.low_open && !rules.high_open)
    return " from " + bound(rules.low) + " to " + bound(rules.high);
  std::string text;
  if (has_low) text += (rules.low_open ? " above " : " of at least ") + bound(rules.low);
  if (has_low && has_high) text += " and";
  if (has_high) text += (rules.high_open ? " below " : " of at most ") + bound(rules.high);
  return text;
}

/// The elements of a list: "numbers above 0".
std::string describe_many(const Type& type, const Rules& rules) {
  switch (type.kind) {
    case Kind::boolean:
      return "true or false";
    case Kind::integer:
      return "whole numbers" + range(rules);
    case Kind::number:
      return "numbers" + range(rules);
    case Kind::section:
      return "sections";
    case Kind::list:
      return "lists";
    case Kind::map:
      return "maps";
    case Kind::any:
      return "values of any kind";
    case Kind::optional:
      return describe_many(*type.element, rules) + " or null";
    case Kind::text:
      break;
  }
  return rules.choices.empty() ? "texts" : describe(type, rules);
}

bool has_required(const Type& type, void* object) {
  if (type.kind != Kind::section) return false;
  return std::ranges::any_of(type.fields(object), [](const Field& field) {
    return field.rules.is_required || has_required(*field.type, field.member);
  });
}

Json schema_of(const Type& type, const Rules& rules, void* object);

Json section_schema(const Type& type, void* object) {
  Json schema = {{"type", Json::array({"object", "null"})}, {"additionalProperties", false}};
  Json properties = Json::object(), needed = Json::array();
  for (const Field& field : type.fields(object)) {
    Json property = schema_of(*field.type, field.rules, field.member);
    property["description"] = field.help;
    if (field.rules.is_required || has_required(*field.type, field.member))
      needed.push_back(field.name);
    else if (field.type->kind != Kind::section)
      property["default"] = to_json(*field.type, field.member);
    properties[field.name] = std::move(property);
  }
  if (!needed.empty()) schema["type"] = "object";
  schema["properties"] = std::move(properties);
  if (!needed.empty()) schema["required"] = std::move(needed);
  return schema;
}

Json number_schema(const char* name, const Rules& rules) {
  const auto number = [](double value) {
    return value == std::floor(value) && std::abs(value) < 1e15 ? Json(static_cast<int64_t>(value)) : Json(value);
  };
  Json schema = {{"type", name}};
  if (std::isfinite(rules.low)) schema[rules.low_open ? "exclusiveMinimum" : "minimum"] = number(rules.low);
  if (std::isfinite(rules.high)) schema[rules.high_open ? "exclusiveMaximum" : "maximum"] = number(rules.high);
  return schema;
}

Json text_schema(const Rules& rules) {
  Json schema = {{"type", rules.takes_bool ? Json::array({"string", "boolean"}) : Json("string")}};
  if (!rules.choices.empty()) schema["enum"] = rules.choices;
  if (rules.is_not_empty) schema["minLength"] = 1;
  return schema;
}

/// The rules that hold for the elements too.
Rules element_rules(Rules rules) {
  rules.is_not_empty = false;
  rules.length.reset();
  return rules;
}

Json schema_of(const Type& type, const Rules& rules, void* object) {
  switch (type.kind) {
    case Kind::boolean:
      return {{"type", "boolean"}};
    case Kind::integer:
      return number_schema("integer", rules);
    case Kind::number:
      return number_schema("number", rules);
    case Kind::text:
      return text_schema(rules);
    case Kind::section:
      return section_schema(type, object);
    case Kind::any:
      return Json::object();
    default:
      break;
  }
  const auto element = type.element->make();
  if (type.kind == Kind::optional) {
    Json schema = schema_of(*type.element, rules, element.get());
    if (schema.contains("type") && !schema["type"].is_array()) schema["type"] = Json::array({schema["type"], "null"});
    if (schema.contains("enum")) schema["enum"].push_back(nullptr);
    return schema;
  }
  Json schema = {{"type", type.kind == Kind::list ? "array" : "object"}};
  schema[type.kind == Kind::list ? "items" : "additionalProperties"] =
      schema_of(*type.element, element_rules(rules), element.get());
  const size_t least = rules.length.value_or(rules.is_not_empty ? 1 : 0);
  if (least > 0) schema[type.kind == Kind::list ? "minItems" : "minProperties"] = least;
  if (rules.length) schema["maxItems"] = *rules.length;
  return schema;
}

std::string default_text(const Field& field) {
  if (field.rules.is_required) return "required";
  const Json value = to_json(*field.type, field.member);
  if (value.is_null()) return "default: none";
  if (value.is_number_float()) return "default: " + format_number(value.get<double>());
  return "default: " + value.dump();
}

void help_section(const Type& type, void* object, const std::string& indent, std::string& out) {
  for (const Field& field : type.fields(object)) {
    const Type* inner = field.type;
    while (inner->element) inner = inner->element;
    if (field.type->kind == Kind::section) {
      out += indent + field.name + ":  " + field.help + "\n";
      help_section(*field.type, field.member, indent + "  ", out);
      continue;
    }
    constexpr size_t kNameWidth = 34;
    std::string line = indent + field.name;
    line.resize(std::max(line.size() + 2, kNameWidth), ' ');
    out += line + field.help + " (" + describe(*field.type, field.rules) + "; " + default_text(field) + ")\n";
    if (inner->kind == Kind::section) {
      const auto element = inner->make();
      help_section(*inner, element.get(), indent + (field.type->kind == Kind::list ? "  - " : "    "), out);
    }
  }
}

}  // namespace

std::string describe(const Type& type, const Rules& rules) {
  switch (type.kind) {
    case Kind::boolean:
      return "true or false";
    case Kind::integer:
      return "a whole number" + range(rules);
    case Kind::number:
      return "a number" + range(rules);
    case Kind::section:
      return "a section (keys indented below)";
    case Kind::any:
      return "a value of any kind";
    case Kind::optional:
      return describe(*type.element, rules) + ", or null";
    case Kind::list: {
      const std::string size = rules.length ? " of " + std::to_string(*rules.length) : "";
      return (rules.is_not_empty ? "a list that is not empty, of " : "a list of ") +
             (rules.length ? std::to_string(*rules.length) + " " : "") + describe_many(*type.element, rules);
    }
    case Kind::map:
      return std::string("a map from names to ") + describe_many(*type.element, rules);
    case Kind::text:
      break;
  }
  if (rules.choices.empty()) return rules.is_not_empty ? "a text that is not empty" : "a text";
  std::string text = "one of ";
  for (const std::string& choice : rules.choices) text += (text.size() > 7 ? ", " : "") + choice;
  return text;
}

std::string json_schema(const Type& type, const void* defaults, const std::string& title) {
  Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}};
  schema.update(section_schema(type, const_cast<void*>(defaults)));
  return schema.dump(2) + "\n";
}

std::string help(const Type& type, const void* defaults) {
  std::string text;
  help_section(type, const_cast<void*>(defaults), "", text);
  return text;
}

}  // namespace llmtk::config::detail
