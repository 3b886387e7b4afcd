#include "text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "text/jinja/operators.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1000;

/// What stands between "%" or ":" and the type.
struct Spec {
  std::string fill = " ";
  char align = 0;  // '<', '>', '^', '='; 0: as the type likes
  char sign = '-';
  bool alternative = false, zero = false, comma = false;
  int64_t width = 0, precision = -1;
  char type = 0;
};

/// Digits at text[at...]; -1 where there are none.
int64_t read_number(std::string_view text, size_t& at) {
  int64_t value = -1;
  const auto parsed = std::from_chars(text.data() + at, text.data() + text.size(), value);
  if (parsed.ptr == text.data() + at) return -1;
  at = static_cast<size_t>(parsed.ptr - text.data());
  if (parsed.ec != std::errc() || value > kMaxWidth)
    throw TemplateError{.what = "a width or precision of a format above " + std::to_string(kMaxWidth)};
  return value;
}

std::string pad(const std::string& body, const std::string& sign, const Spec& spec, char align) {
  const auto size = static_cast<int64_t>(count(body) + count(sign));
  const int64_t missing = std::max<int64_t>(spec.width - size, 0);
  const auto fill = [&](int64_t times) {
    std::string out;
    for (int64_t i = 0; i < times; ++i) out += spec.fill;
    return out;
  };
  if (align == '=') return sign + fill(missing) + body;
  const int64_t before = align == '<' ? 0 : align == '>' ? missing : missing / 2;
  return fill(before) + sign + body + fill(missing - before);
}

std::string with_commas(const std::string& digits) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out + digits.substr(whole);
}

std::string sign_of(bool negative, const Spec& spec) {
  if (negative) return "-";
  return spec.sign == '-' ? "" : std::string(1, spec.sign);
}

std::string finish_number(std::string digits, bool negative, const std::string& mark, const Spec& spec) {
  if (spec.comma) digits = with_commas(digits);
  const char align = spec.align ? spec.align : spec.zero ? '=' : '>';
  return pad(digits, sign_of(negative, spec) + mark, spec, align);
}

std::string format_integer(int64_t value, const Spec& spec) {
  const bool negative = value < 0;
  const uint64_t magnitude = negative ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const char type = static_cast<char>(spec.type | 0x20);
  const int base = type == 'x' ? 16 : type == 'o' ? 8 : type == 'b' ? 2 : 10;
  char buffer[72];
  std::string digits(buffer, std::to_chars(buffer, buffer + sizeof buffer, magnitude, base).ptr);
  if (spec.type == 'X') std::ranges::transform(digits, digits.begin(), [](char c) { return c >= 'a' ? c - 32 : c; });
  const std::string mark = spec.alternative && base != 10 ? std::string("0") + spec.type : "";
  return finish_number(std::move(digits), negative, mark, spec);
}

std::string format_float(double value, const Spec& spec) {
  std::string digits;
  const char type = spec.type == '%' ? 'f' : spec.type;
  const double magnitude = std::fabs(spec.type == '%' ? value * 100 : value);
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
  } else if (!type && spec.precision < 0) {
    digits = repr(magnitude);
  } else {
    const std::string format = std::string("%") + (spec.alternative ? "#" : "") + ".*" + (type ? type : 'g');
    const int precision = static_cast<int>(spec.precision < 0 ? 6 : spec.precision);
    digits.resize(static_cast<size_t>(std::snprintf(nullptr, 0, format.c_str(), precision, magnitude)));
    std::snprintf(digits.data(), digits.size() + 1, format.c_str(), precision, magnitude);
  }
  if (spec.type == '%') digits += '%';
  return finish_number(std::move(digits), std::signbit(value) && !std::isnan(value), "", spec);
}

std::string cut(const std::string& text, int64_t precision) {
  return precision < 0 ? text : text.substr(0, byte_offset(text, static_cast<size_t>(precision)));
}

// --- "%..." ---

/// Hands out the values one by one, or by their keys.
class PercentValues {
 public:
  PercentValues(const Value& values, Runtime& runtime) : values_(values), runtime_(runtime) {}

  const Value& next() {
    if (!values_.is(Kind::tuple)) {
      if (used_++ > 0) missing();
      return values_;
    }
    if (used_ >= values_.items().size()) missing();
    return values_.items()[used_++];
  }
  const Value& named(const std::string& key) {
    if (!values_.is(Kind::dict)) throw TemplateError{.what = "format requires a mapping"};
    used_ = 1;
    if (const Value* found = values_.dict().find(key)) return *found;
    throw TemplateError{.what = "the format's key '" + key + "' is not there"};
  }
  void check_all_used() const {
    const size_t size = values_.is(Kind::tuple) ? values_.items().size() : 1;
    const bool may_be_left = values_.is(Kind::dict) || values_.is(Kind::list);
    if (used_ < size && !may_be_left)
      throw TemplateError{.what = "not all arguments converted during string formatting"};
  }

 private:
  [[noreturn]] static void missing() { throw TemplateError{.what = "not enough arguments for format string"}; }
  const Value& values_;
  Runtime& runtime_;
  size_t used_ = 0;
};

std::string percent_number(const Value& value, Spec& spec) {
  if (!value.is_numeric())
    unsuitable(value, std::string("%") + spec.type + " format: a number is required, not " + type_name(value));
  const bool whole = std::string_view("diuxXo").find(spec.type) != std::string_view::npos;
  if (!whole) {
    if (spec.precision < 0) spec.precision = 6;
    return format_float(value.numeric(), spec);
  }
  if (!value.is_integral() && (spec.type == 'x' || spec.type == 'X' || spec.type == 'o'))
    throw TemplateError{.what = std::string("%") + spec.type + " format: an integer is required, not float"};
  if (!value.is_integral() && !(std::fabs(value.numeric()) < 9.2e18))
    throw TemplateError{.what = "a whole number of more than 64 bits"};
  const int64_t number = value.is_integral() ? value.integral() : static_cast<int64_t>(value.numeric());
  const auto least = spec.precision;
  Spec digits = spec;
  if (least >= 0) digits.zero = false;
  if (least < 0) return format_integer(number, digits);
  Spec bare = digits;  // a precision is the least number of digits
  bare.width = 0, bare.sign = '-';
  std::string text = format_integer(number, bare);
  const bool negative = text.starts_with('-');
  text = text.substr(negative);
  if (static_cast<int64_t>(text.size()) < least) text.insert(0, static_cast<size_t>(least) - text.size(), '0');
  return finish_number(std::move(text), negative, "", digits);
}

std::string percent_value(const Value& value, Spec spec, Runtime& runtime) {
  switch (spec.type) {
    case 's':
    case 'r':
    case 'a':
      if (spec.type == 'a') break;
      spec.fill = " ";
      return pad(cut(spec.type == 's' ? str(value, runtime.work) : repr(value, runtime.work), spec.precision), "", spec,
                 spec.align ? spec.align : '>');
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      return percent_number(value, spec);
    default:
      break;
  }
  throw TemplateError{.what = "unsupported format character '" + std::string(1, spec.type) + "'"};
}

Spec read_percent_spec(std::string_view format, size_t& at, PercentValues& values) {
  Spec spec;
  for (; at < format.size() && std::string_view("-+ #0").find(format[at]) != std::string_view::npos; ++at) {
    const char flag = format[at];
    if (flag == '-') spec.align = '<';
    if (flag == '+' || (flag == ' ' && spec.sign == '-')) spec.sign = flag;
    if (flag == '#') spec.alternative = true;
    if (flag == '0') spec.zero = true;
  }
  const auto number = [&]() -> int64_t {
    if (at >= format.size() || format[at] != '*') return read_number(format, at);
    ++at;
    const Value& value = values.next();
    if (!value.is_integral() || value.integral() < 0 || value.integral() > kMaxWidth)
      throw TemplateError{.what = "* wants a whole number from 0 to " + std::to_string(kMaxWidth)};
    return value.integral();
  };
  spec.width = std::max<int64_t>(number(), 0);
  if (at < format.size() && format[at] == '.') {
    ++at;
    spec.precision = std::max<int64_t>(number(), 0);
  }
  while (at < format.size() && std::string_view("hlL").find(format[at]) != std::string_view::npos) ++at;
  if (at >= format.size()) throw TemplateError{.what = "incomplete format"};
  spec.type = format[at++];
  if (spec.zero && !spec.align) spec.fill = "0";
  return spec;
}

}  // namespace

std::string format_percent(std::string_view format, const Value& values, Runtime& runtime) {
  PercentValues handed(values, runtime);
  std::string out;
  for (size_t at = 0; at < format.size();) {
    const size_t percent = std::min(format.find('%', at), format.size());
    out += format.substr(at, percent - at);
    at = percent + 1;
    if (percent == format.size()) break;
    runtime.work.spend(8);
    const Value* value = nullptr;
    if (at < format.size() && format[at] == '(') {
      const size_t end = format.find(')', at);
      if (end == format.npos) throw TemplateError{.what = "incomplete format key"};
      value = &handed.named(std::string(format.substr(at + 1, end - at - 1)));
      at = end + 1;
    }
    const Spec spec = read_percent_spec(format, at, handed);
    out += spec.type == '%' ? "%" : percent_value(value ? *value : handed.next(), spec, runtime);
    runtime.work.spend_bytes(out.size() - std::min(out.size(), percent));
  }
  handed.check_all_used();
  return out;
}

// --- "{...}" ---

namespace {

Spec read_braces_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  const size_t first = byte_offset(text, 1);
  if (first < text.size() && !text.empty() && is_align(text[first])) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    at = first + 1;
  } else if (!text.empty() && is_align(text[0])) {
    spec.align = text[0];
    at = 1;
  }
  const auto take = [&](char c) { return at < text.size() && text[at] == c && ++at; };
  for (const char sign : {'+', '-', ' '})
    if (take(sign)) spec.sign = sign;
  spec.alternative = take('#');
  if (take('0')) {
    spec.zero = true;
    if (!spec.align) spec.fill = "0", spec.align = '=';
  }
  spec.width = std::max<int64_t>(read_number(text, at), 0);
  spec.comma = take(',');
  if (take('.')) {
    spec.precision = read_number(text, at);
    if (spec.precision < 0) throw TemplateError{.what = "Format specifier missing precision"};
  }
  if (at < text.size()) spec.type = text[at++];
  if (at < text.size()) throw TemplateError{.what = "Invalid format specifier '" + std::string(text) + "'"};
  return spec;
}

std::string braces_value(const Value& value, std::string_view spec_text, Runtime& runtime) {
  if (spec_text.empty()) return str(value, runtime.work);
  Spec spec = read_braces_spec(spec_text);
  const auto is_one_of = [&](std::string_view types) { return spec.type == 0 || types.find(spec.type) != types.npos; };
  if (value.is_string() && is_one_of("s") && spec.align != '=')
    return pad(cut(value.text(), spec.precision), "", spec, spec.align ? spec.align : '<');
  if (value.is_integral() && is_one_of("dxXob") && !(value.is(Kind::boolean) && spec.type == 0) && spec.precision < 0)
    return format_integer(value.integral(), spec);
  if (value.is_numeric() && spec.type != 0 && is_one_of("eEfFgG%")) return format_float(value.numeric(), spec);
  if (value.is(Kind::number) && spec.type == 0 && spec.precision < 0) return format_float(value.numeric(), spec);
  throw TemplateError{.what = "the format '" + std::string(spec_text) + "' is not supported for " + type_name(value)};
}

/// What stands between braces: "0.name[key]!r:spec".
class BracesField {
 public:
  BracesField(const Arguments& arguments, Runtime& runtime) : arguments_(arguments), runtime_(runtime) {}

  std::string format(std::string_view field) {
    const size_t colon = std::min(field.find(':'), field.size());
    std::string_view name = field.substr(0, colon);
    const std::string_view spec = field.substr(std::min(colon + 1, field.size()));
    if (spec.find('{') != spec.npos) throw TemplateError{.what = "formats inside of formats are not supported"};
    char conversion = 0;
    if (const size_t mark = name.find('!'); mark != name.npos) {
      if (mark + 2 != name.size() || (name[mark + 1] != 'r' && name[mark + 1] != 's'))
        throw TemplateError{.what = "a conversion other than !r and !s in a format"};
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    const Value value = resolve(name);
    if (conversion == 'r') return braces_value(Value(repr(value, runtime_.work)), spec, runtime_);
    if (conversion == 's') return braces_value(Value(str(value, runtime_.work)), spec, runtime_);
    return braces_value(value, spec, runtime_);
  }

 private:
  static bool is_number(std::string_view text) {
    return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
  }

  Value resolve(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, at));
    while (at < name.size()) {
      const bool attribute = name[at] == '.';
      const size_t end = attribute ? std::min(name.find_first_of(".[", at + 1), name.size()) : name.find(']', at);
      if (end == name.npos) throw TemplateError{.what = "Missing ']' in format string"};
      const std::string part(name.substr(at + 1, end - at - 1));
      if (part.empty()) throw TemplateError{.what = "Empty attribute in format string"};
      if (attribute)
        value = get_attribute(value, part, runtime_);
      else
        value = get_item(value, is_number(part) ? Value(int64_t{std::stoi(part)}) : Value(part), runtime_);
      at = attribute ? end : end + 1;
    }
    return value;
  }

  const Value& first(std::string_view name) {
    if (name.empty() || is_number(name)) {
      const bool automatic = name.empty();
      if (automatic ? numbered_ : next_ > 0)
        throw TemplateError{.what = "cannot switch between automatic and manual field numbering"};
      numbered_ = !automatic;
      const size_t index = automatic ? next_++ : static_cast<size_t>(std::stoi(std::string(name)));
      if (index >= arguments_.positional.size())
        throw TemplateError{.what = "Replacement index " + std::to_string(index) +
                                    " out of range for positional args tuple"};
      return arguments_.positional[index];
    }
    for (const auto& [key, value] : arguments_.keyword)
      if (key == name) return value;
    throw TemplateError{.what = "the format's key '" + std::string(name) + "' is not given"};
  }

  const Arguments& arguments_;
  Runtime& runtime_;
  size_t next_ = 0;
  bool numbered_ = false;
};

}  // namespace

std::string format_braces(std::string_view format, const Arguments& arguments, Runtime& runtime) {
  BracesField field(arguments, runtime);
  std::string out;
  for (size_t at = 0; at < format.size();) {
    const char c = format[at++];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (at < format.size() && format[at] == c) {
      out += c;
      ++at;
      continue;
    }
    const size_t end = format.find('}', at);
    if (c == '}') throw TemplateError{.what = "Single '}' encountered in format string"};
    if (end == format.npos) throw TemplateError{.what = "expected '}' before end of string"};
    runtime.work.spend(8);
    const std::string part = field.format(format.substr(at, end - at));
    runtime.work.spend_bytes(part.size());
    out += part;
    at = end + 1;
  }
  return out;
}

}  // namespace llmtk::text::jinja
