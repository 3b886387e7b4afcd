#include "text/jinja/json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/utf8.h"
#include "text/jinja/filters.h"

namespace llmtk::text::jinja {
namespace {

/// Python's json.dumps.
class JsonWriter {
 public:
  struct Options {
    bool ensure_ascii = false, sort_keys = false, indented = false;
    std::string indent, item_separator, key_separator;
  };
  JsonWriter(const Options& options, Work& work) : options_(options), work_(work) {}

  std::string run(const Value& value) {
    write(value);
    return std::move(out_);
  }

 private:
  void write(const Value& value) {
    work_.spend();
    switch (value.kind()) {
      case Kind::none:
        out_ += "null";
        return;
      case Kind::boolean:
        out_ += value.boolean() ? "true" : "false";
        return;
      case Kind::integer:
        out_ += std::to_string(value.integral());
        return;
      case Kind::number:
        out_ += number(value.numeric());
        return;
      case Kind::string:
        return write_string(value.text());
      case Kind::list:
      case Kind::tuple:
        return write_list(value.items());
      case Kind::dict:
        return write_dict(value.dict());
      default:
        throw TemplateError{.what = "Object of type " + type_name(value) + " is not JSON serializable"};
    }
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return repr(value);
  }

  void write_list(const std::vector<Value>& items) {
    out_ += '[';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      begin_item(i);
      write(items[i]);
    }
    end(items.empty(), ']');
  }

  void write_dict(const Dict& dict) {
    std::vector<std::pair<std::string, const Value*>> items;
    for (const auto& [key, value] : dict.items()) items.emplace_back(key_text(key), &value);
    if (options_.sort_keys) sort(dict, items);
    out_ += '{';
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      begin_item(i);
      write_string(items[i].first);
      work_.spend_bytes(options_.key_separator.size());
      out_ += options_.key_separator;
      write(*items[i].second);
    }
    end(items.empty(), '}');
  }

  /// As Python sorts the keys themselves, of one type only.
  void sort(const Dict& dict, std::vector<std::pair<std::string, const Value*>>& items) {
    std::vector<size_t> order(items.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::ranges::stable_sort(order, [&](size_t a, size_t b) {
      return compare(dict.items()[a].first, dict.items()[b].first, "<", work_) == -1;
    });
    std::vector<std::pair<std::string, const Value*>> sorted;
    for (const size_t i : order) sorted.push_back(std::move(items[i]));
    items = std::move(sorted);
  }

  static std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::string:
        return key.text();
      case Kind::boolean:
        return key.boolean() ? "true" : "false";
      case Kind::none:
        return "null";
      case Kind::integer:
        return std::to_string(key.integral());
      case Kind::number:
        return number(key.numeric());
      default:
        throw TemplateError{.what = "keys must be str, int, float, bool or None, not " + type_name(key)};
    }
  }

  void begin_item(size_t i) {
    if (i > 0) {
      work_.spend_bytes(options_.item_separator.size());
      out_ += options_.item_separator;
    }
    if (options_.indented) new_line();
  }
  void end(bool empty, char bracket) {
    --level_;
    if (options_.indented && !empty) new_line();
    out_ += bracket;
  }
  void new_line() {
    out_ += '\n';
    work_.spend_bytes(level_ * options_.indent.size());
    for (size_t i = 0; i < level_; ++i) out_ += options_.indent;
  }

  void write_string(const std::string& text) {
    work_.spend_bytes(text.size());
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const size_t begin = i;
      const int32_t c = next_code_point(text, i);
      constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f", kNames = "\"\\nrtbf";
      const size_t known = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : kEscaped.npos;
      if (known != kEscaped.npos)
        (out_ += '\\') += kNames[known];
      else if (c < 0x20 || (options_.ensure_ascii && c > 0x7e))
        write_escape(c);
      else
        out_.append(text, begin, i - begin);
    }
    out_ += '"';
  }

  void write_escape(int32_t c) {
    char text[16];
    if (c < 0x10000)
      std::snprintf(text, sizeof text, "\\u%04x", static_cast<unsigned>(c));
    else
      std::snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xD800 + static_cast<unsigned>((c - 0x10000) >> 10),
                    0xDC00 + static_cast<unsigned>((c - 0x10000) & 0x3FF));
    out_ += text;
  }

  const Options& options_;
  Work& work_;
  std::string out_;
  size_t level_ = 0;
};

}  // namespace

Value to_json(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonWriter::Options options{.ensure_ascii = bound.flag(0, false), .sort_keys = bound.flag(3, false)};
  options.indented = !bound.none(1);
  if (options.indented) {
    if (bound[1]->is_string()) {
      options.indent = bound[1]->text();
    } else {
      const auto width = static_cast<size_t>(std::max<int64_t>(bound.integer(1, 0), 0));
      runtime.work.spend_bytes(width);
      options.indent.assign(width, ' ');
    }
  }
  options.item_separator = options.indented ? "," : ", ";
  options.key_separator = ": ";
  if (!bound.none(2)) {
    const auto separators = to_list(*bound[2], runtime.work);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string())
      throw TemplateError{.what = "tojson(): separators must be two strings"};
    options.item_separator = separators[0].text();
    options.key_separator = separators[1].text();
    runtime.work.spend_bytes(options.item_separator.size() + options.key_separator.size());
  }
  return Value(JsonWriter(options, runtime.work).run(value));
}

Value from_json(const nlohmann::ordered_json& json) {
  using Type = nlohmann::ordered_json::value_t;
  switch (json.type()) {
    case Type::boolean:
      return Value(json.get<bool>());
    case Type::number_integer:
      return Value(json.get<int64_t>());
    case Type::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return Value(json.get<double>());
      return Value(json.get<int64_t>());
    case Type::number_float:
      return Value(json.get<double>());
    case Type::string:
      return Value(json.get<std::string>());
    case Type::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(from_json(item));
      return Value::list(std::move(items));
    }
    case Type::object: {
      Dict dict;
      for (const auto& [key, item] : json.items()) dict.set(key, from_json(item));
      return Value(std::move(dict));
    }
    default:
      return Value();
  }
}

}  // namespace llmtk::text::jinja
