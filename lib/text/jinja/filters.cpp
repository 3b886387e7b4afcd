#include "text/jinja/filters.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>

#include "core/utf8.h"
#include "text/jinja/format.h"
#include "text/jinja/methods.h"
#include "text/jinja/objects.h"
#include "text/jinja/operators.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

/// The method of the value's text under the same name.
template <const char* const& method>
Value text_method(Runtime& runtime, const Value& value, const Arguments& arguments) {
  Arguments passed = arguments;
  return get_method(Value(str(value, runtime.work)), method)->object().call(runtime, passed);
}
const char* const kUpper = "upper";
const char* const kLower = "lower";
const char* const kCapitalize = "capitalize";

// --- text ---

Value trim(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  const std::string text = str(value, runtime.work);
  if (bound.none(0)) return Value(strip(text, true, true));
  const std::string_view chars = bound.text(0);
  return Value(strip(text, true, true, &chars));
}

Value as_string(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("string", arguments, {});
  return value.is_string() ? value : Value(str(value, runtime.work));
}

Value filter_replace(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  Arguments passed{.positional = {Value(str(*bound[0], runtime.work)), Value(str(*bound[1], runtime.work))}};
  passed.positional.emplace_back(bound.none(2) ? -1 : bound.integer(2, -1));
  return get_method(Value(str(value, runtime.work)), "replace")->object().call(runtime, passed);
}

/// Words begin behind white space, hyphens and opening brackets.
Value titled(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("title", arguments, {});
  const std::string text = str(value, runtime.work);
  runtime.work.spend_bytes(16 * text.size());
  const auto separates = [](int32_t c) {
    return is_space(c) || (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string_view::npos);
  };
  std::string out;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin;
    size_t at = begin;
    const bool separator = separates(next_code_point(text, at));
    for (end = at; end < text.size(); end = at)
      if (separates(next_code_point(text, at)) != separator) break;
    const std::string_view word = std::string_view(text).substr(begin, end - begin);
    const size_t first = byte_offset(word, 1);
    out += to_upper(word.substr(0, first)) + to_lower(word.substr(first));
    begin = end;
  }
  return Value(std::move(out));
}

Value indent(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  if (!value.is_string()) unsuitable(value, "indent() takes a string, not " + type_name(value));
  const bool by_text = bound.given(0) && bound[0]->is_string();
  const auto width = static_cast<size_t>(by_text ? 0 : std::max<int64_t>(bound.integer(0, 4), 0));
  runtime.work.spend_bytes(width);
  const std::string by = by_text ? bound[0]->text() : std::string(width, ' ');
  const std::string text = value.text() + "\n";  // as Jinja2 does: an empty text has a line
  const auto lines = split_lines(text);
  runtime.work.spend_bytes(lines.size() * (by.size() + 1) + text.size());
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\n";
    if (i == 0 ? bound.flag(1, false) : bound.flag(2, false) || !lines[i].empty()) out += by;
    out += lines[i];
  }
  return Value(std::move(out));
}

Value center(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  Arguments passed{.positional = {Value(bound.integer(0, 80))}};
  return get_method(Value(str(value, runtime.work)), "center")->object().call(runtime, passed);
}

Value truncate(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const std::string end = bound.text_or(2, "...");
  const int64_t most = bound.integer(0, 255), leeway = bound.none(3) ? 5 : bound.integer(3, 5);
  const auto end_size = static_cast<int64_t>(count(end));
  if (most < end_size || leeway < 0)
    throw TemplateError{.what = "truncate(): the length is shorter than the end, or the leeway below 0"};
  if (static_cast<int64_t>(length(value, runtime.work)) <= most + leeway) return value;
  if (!value.is_string()) throw TemplateError{.what = "truncate() cuts strings, not " + type_name(value)};
  const std::string& text = value.text();
  std::string cut = text.substr(0, byte_offset(text, static_cast<size_t>(most - end_size)));
  if (!bound.flag(1, false)) cut = cut.substr(0, cut.rfind(' '));
  return Value(cut + end);
}

Value word_count(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("wordcount", arguments, {});
  const std::string text = str(value, runtime.work);
  runtime.work.spend_bytes(16 * text.size());
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size();) {
    const int32_t c = next_code_point(text, i);
    const bool letter = c == '_' || is_alpha(c) || is_decimal(c) || is_digit(c);
    words += letter && !inside;
    inside = letter;
  }
  return Value(words);
}

Value escape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("escape", arguments, {});
  if (value.is_markup()) return value;
  std::string out;
  for (const char c : str(value, runtime.work)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&#34;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  return Value::markup(std::move(out));
}

Value safe(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("safe", arguments, {});
  return Value::markup(str(value, runtime.work));
}

Value url_encoded(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound none("urlencode", arguments, {});
  if (!value.is_string() && !value.is_numeric() && !value.is_none())
    throw TemplateError{.what = "urlencode() is supported for strings and numbers only"};
  std::string out;
  for (const char c : str(value, runtime.work)) {
    char code[4] = {c, 0};
    const auto byte = static_cast<unsigned char>(c);
    if (!std::isalnum(byte) && std::string_view("_.-~/").find(c) == std::string_view::npos)
      std::snprintf(code, sizeof code, "%%%02X", byte);
    out += code;
  }
  return Value(std::move(out));
}

Value filter_format(Runtime& runtime, const Value& value, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keyword.empty())
    throw TemplateError{.what = "can't handle positional and keyword arguments at the same time"};
  const std::string format = str(value, runtime.work);
  if (arguments.keyword.empty()) return Value(format_percent(format, Value::tuple(arguments.positional), runtime));
  Dict named;
  for (const auto& [name, argument] : arguments.keyword) named.set(name, argument);
  return Value(format_percent(format, Value(std::move(named)), runtime));
}

// --- numbers ---

Value absolute(Runtime&, const Value& value, const Arguments& arguments) {
  const Bound none("abs", arguments, {});
  if (value.is(Kind::number)) return Value(std::fabs(value.numeric()));
  if (!value.is_integral()) unsuitable(value, "bad operand type for abs(): '" + type_name(value) + "'");
  return value.integral() < 0 ? negate(value) : Value(value.integral());
}

/// Python's int() of a text; nullopt: it is none.
std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  std::string digits(strip(text, true, true));
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  const auto marked = [&](int64_t of, char mark) {
    return (base == of || base == 0) && digits.size() > 2 && digits[0] == '0' && (digits[1] | 0x20) == mark;
  };
  for (const auto& [of, mark] : {std::pair{int64_t{16}, 'x'}, {int64_t{8}, 'o'}, {int64_t{2}, 'b'}})
    if (marked(of, mark)) {
      base = of;
      digits.erase(0, 2);
      break;
    }
  if (base == 0) base = 10;
  for (size_t i = 1; i + 1 < digits.size(); ++i)
    if (digits[i] == '_' && digits[i - 1] != '_' && digits[i + 1] != '_') digits.erase(i, 1);
  if (negative) digits.insert(0, "-");
  int64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
  if (parsed.ptr != digits.data() + digits.size() || digits.empty() || digits == "-") return std::nullopt;
  if (parsed.ec == std::errc::result_out_of_range) throw TemplateError{.what = "a whole number of more than 64 bits"};
  return parsed.ec == std::errc() ? std::optional(value) : std::nullopt;
}

/// Python's float() of a text.
std::optional<double> parse_float(std::string_view text) {
  std::string digits(strip(text, true, true));
  for (size_t i = 1; i + 1 < digits.size(); ++i)
    if (digits[i] == '_' && std::isdigit(static_cast<unsigned char>(digits[i - 1])) &&
        std::isdigit(static_cast<unsigned char>(digits[i + 1])))
      digits.erase(i, 1);
  const size_t sign = digits.starts_with('+') || digits.starts_with('-');
  const std::string magnitude = to_lower(std::string_view(digits).substr(sign));
  const bool named = magnitude == "inf" || magnitude == "infinity" || magnitude == "nan";
  if (!named && (magnitude.empty() || magnitude.find_first_not_of("0123456789.e+-") != std::string::npos))
    return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size() ? std::optional(value) : std::nullopt;
}

std::optional<double> number_of(const Value& value) {
  if (value.is_numeric()) return value.numeric();
  return value.is_string() ? parse_float(value.text()) : std::nullopt;
}

int64_t whole(double value) {
  if (!(std::fabs(value) < 9.2e18)) throw TemplateError{.what = "a whole number of more than 64 bits"};
  return static_cast<int64_t>(value);
}

Value to_integer(Runtime&, const Value& value, const Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  if (value.is_undefined()) throw TemplateError{.what = value.undefined_message()};
  const Value otherwise = bound.given(0) ? *bound[0] : Value(0);
  if (value.is_integral()) return Value(value.integral());
  if (value.is_string()) {
    const int64_t base = bound.integer(1, 10);
    if (base != 0 && (base < 2 || base > 36)) return otherwise;
    if (const auto number = parse_integer(value.text(), base)) return Value(*number);
  }
  const auto number = number_of(value);
  if (!number || std::isnan(*number)) return otherwise;
  if (std::isinf(*number)) {
    if (value.is_string()) return otherwise;
    throw TemplateError{.what = "cannot convert float infinity to integer"};
  }
  return Value(whole(*number));
}

Value to_float(Runtime&, const Value& value, const Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  if (value.is_undefined()) throw TemplateError{.what = value.undefined_message()};
  if (const auto number = number_of(value)) return Value(*number);
  return bound.given(0) ? *bound[0] : Value(0.0);
}

/// Python's round(): exact in decimal, halves to even.
double round_half_even(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 300) return value;
  if (digits < -300) return std::copysign(0.0, value);
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::nearbyint(value / scale) * scale;
  }
  char text[700];
  std::snprintf(text, sizeof text, "%.*f", static_cast<int>(digits), value);  // rounds exactly, halves to even
  return std::strtod(text, nullptr);
}

Value rounded(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  const std::string method = bound.text_or(1, "common");
  const int64_t precision = bound.integer(0, 0);
  if (method != "common" && method != "ceil" && method != "floor")
    throw TemplateError{.what = "method must be common, ceil or floor"};
  if (!value.is_numeric()) unsuitable(value, "type " + type_name(value) + " doesn't define __round__ method");
  if (method == "common") {
    if (!value.is_integral()) return Value(round_half_even(value.numeric(), precision));
    if (precision >= 0) return Value(value.integral());
    return Value(whole(round_half_even(value.numeric(), precision)));
  }
  const Value scale = arithmetic("**", Value(10), Value(precision), runtime);
  const double scaled = arithmetic("*", value, scale, runtime).numeric();
  const int64_t moved = whole(method == "ceil" ? std::ceil(scaled) : std::floor(scaled));
  return arithmetic("/", Value(moved), scale, runtime);
}

Value file_size(Runtime&, const Value& value, const Arguments& arguments) {
  const Bound bound("filesizeformat", arguments, {"binary"});
  const auto number = number_of(value);
  if (!number) unsuitable(value, "filesizeformat() takes a number, not " + type_name(value));
  const bool binary = bound.flag(0, false);
  const double base = binary ? 1024 : 1000;
  if (*number == 1) return Value("1 Byte");
  if (*number < base) return Value(std::to_string(whole(*number)) + " Bytes");
  constexpr std::string_view prefixes = "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  while (i + 1 < prefixes.size() && *number >= unit * base) unit *= base, ++i;
  char text[400];
  std::snprintf(text, sizeof text, "%.1f %c%sB", *number / unit, binary && i == 0 ? 'K' : prefixes[i],
                binary ? "i" : "");
  return Value(text);
}

// --- others ---

Value otherwise(Runtime&, const Value& value, const Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool missing = value.is_undefined() || (bound.flag(1, false) && !truth(value));
  if (!missing) return value;
  return bound.given(0) ? *bound[0] : Value("");
}

Value attribute(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  const std::string& name = bound.text(0);
  if (value.is(Kind::object) || !value.is(Kind::dict) || get_method(value, name))
    return get_attribute(value, name, runtime);
  return Value::undefined("'" + type_name(value) + " object' has no attribute '" + name + "'");
}

const FilterTable& filter_table() {
  static const FilterTable filters = [] {
    FilterTable all = sequence_filters();
    all.merge(FilterTable{{"abs", absolute},
                          {"attr", attribute},
                          {"capitalize", text_method<kCapitalize>},
                          {"center", center},
                          {"d", otherwise},
                          {"default", otherwise},
                          {"e", escape},
                          {"escape", escape},
                          {"filesizeformat", file_size},
                          {"float", to_float},
                          {"forceescape", escape},
                          {"format", filter_format},
                          {"indent", indent},
                          {"int", to_integer},
                          {"lower", text_method<kLower>},
                          {"replace", filter_replace},
                          {"round", rounded},
                          {"safe", safe},
                          {"string", as_string},
                          {"title", titled},
                          {"tojson", to_json},
                          {"trim", trim},
                          {"truncate", truncate},
                          {"upper", text_method<kUpper>},
                          {"urlencode", url_encoded},
                          {"wordcount", word_count}});
    for (const char* name : {"pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"})
      all.emplace(name, nullptr);  // Jinja2's that are not supported
    return all;
  }();
  return filters;
}

}  // namespace

bool has_filter(std::string_view name) { return filter_table().contains(name); }

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments, Runtime& runtime) {
  runtime.work.spend();
  const auto found = filter_table().find(name);
  if (found == filter_table().end()) throw TemplateError{.what = "no filter named '" + std::string(name) + "'"};
  if (!found->second) throw TemplateError{.what = "the filter '" + std::string(name) + "' is not supported"};
  return found->second(runtime, value, arguments);
}

}  // namespace llmtk::text::jinja
