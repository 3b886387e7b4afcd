#include "config/scalar.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/utf8.h"

namespace llmtk::config {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

/// A decimal number's parts: [+-] digits [. digits] [e [+-] digits], underscores between digits allowed.
struct Decimal {
  std::string text;  // without underscores and '+'
  bool is_plain_integer;
};

std::optional<Decimal> parse_decimal(std::string_view text) {
  Decimal result{"", true};
  size_t i = 0;
  const auto digits = [&] {
    const size_t begin = i;
    while (i < text.size() && (is_digit(text[i]) || (text[i] == '_' && i > begin && is_digit(text[i - 1]) &&
                                                     i + 1 < text.size() && is_digit(text[i + 1])))) {
      if (text[i] != '_') result.text += text[i];
      ++i;
    }
    return i > begin;
  };
  const auto take = [&](std::string_view any) {
    if (i < text.size() && any.find(text[i]) != any.npos) {
      if (text[i] != '+') result.text += text[i];
      ++i;
      return true;
    }
    return false;
  };
  take("+-");
  const size_t whole_begin = i;
  const bool whole = digits();
  if (whole && text[whole_begin] == '0' && i - whole_begin > 1)
    return std::nullopt;  // octal to YAML 1.1, decimal to 1.2
  bool fraction = false;
  if (take(".")) {
    result.is_plain_integer = false;
    fraction = digits();
  }
  if (!whole && !fraction) return std::nullopt;
  if (take("eE")) {
    result.is_plain_integer = false;
    take("+-");
    if (!digits()) return std::nullopt;
  }
  if (i != text.size()) return std::nullopt;
  return result;
}

std::string number_hint(std::string_view text) {
  if (text.size() > 1 && is_digit(text[0])) {
    const std::string rest = lower(text.substr(std::min(text.size(), text.find_first_not_of("0123456789._"))));
    if (rest == "k" || rest == "m" || rest == "b" || rest == "g") return "write the number out, or as 1e3, 1e6, 1e9";
    if (rest == "%") return "write a fraction: 0.1 for 10%";
    if (text[0] == '0') return "leading zeros and 0x, 0o, 0b are not supported: write it as a decimal";
  }
  if (text.find(',') != text.npos) return "write no commas: 1000 or 1_000";
  return "";
}

}  // namespace

Parsed<bool> parse_bool(std::string_view text) {
  if (text == "true") return {.value = true};
  if (text == "false") return {.value = false};
  const std::string word = lower(text);
  for (const char* yes : {"true", "yes", "on", "y", "1"})
    if (word == yes) return {.expected = "true or false", .hint = "write true"};
  for (const char* no : {"false", "no", "off", "n", "0"})
    if (word == no) return {.expected = "true or false", .hint = "write false"};
  return {.expected = "true or false"};
}

Parsed<int64_t> parse_integer(std::string_view text) {
  const auto decimal = parse_decimal(text);
  if (!decimal) return {.expected = "a whole number", .hint = number_hint(text)};
  const char *begin = decimal->text.data(), *end = begin + decimal->text.size();
  if (decimal->is_plain_integer) {
    int64_t value = 0;
    if (std::from_chars(begin, end, value).ec == std::errc()) return {.value = value};
    return {.expected = "a whole number of at most 64 bits"};
  }
  double value = 0;
  const bool parsed = std::from_chars(begin, end, value).ec == std::errc();
  if (!parsed || value != std::floor(value)) return {.expected = "a whole number"};
  constexpr double kExact = 9007199254740992.0;  // 2^53: beyond it a double may not be what was written
  if (std::abs(value) > kExact) return {.expected = "a whole number", .hint = "write its digits out"};
  return {.value = static_cast<int64_t>(value)};
}

Parsed<double> parse_number(std::string_view text) {
  const auto decimal = parse_decimal(text);
  if (!decimal) {
    std::string word = lower(text);
    std::erase_if(word, [](char c) { return c == '.' || c == '+' || c == '-'; });
    if (word == "nan" || word == "inf" || word == "infinity") return {.expected = "a finite number"};
    return {.expected = "a number", .hint = number_hint(text)};
  }
  double value = 0;
  const auto [end, error] = std::from_chars(decimal->text.data(), decimal->text.data() + decimal->text.size(), value);
  if (error == std::errc()) return {.value = value};
  return {.expected = "a number that fits a double", .hint = "its magnitude lies between 2.3e-308 and 1.8e308"};
}

bool is_null_word(std::string_view text) { return text.empty() || text == "~" || lower(text) == "null"; }

bool reads_as_other_than_text(std::string_view text) {
  if (is_null_word(text)) return true;
  const std::string word = lower(text);
  for (const char* other : {"true", "false", "yes", "no", "on", "off", "y", "n"})
    if (word == other) return true;
  const size_t sign = (word[0] == '+' || word[0] == '-') ? 1 : 0;
  const std::string_view rest = std::string_view(word).substr(sign);
  if (rest == ".inf" || rest == ".nan") return true;
  if (rest.empty() || !(is_digit(rest[0]) || rest[0] == '.')) return false;
  // Numbers in any base, with underscores or in base 60, and dates: digits and their punctuation only.
  if (parse_decimal(text)) return true;
  if (rest.find_first_not_of("0123456789_.:-+tz ") == rest.npos && rest.find_first_of("0123456789") != rest.npos)
    return true;
  if (rest.size() > 2 && rest[0] == '0' && rest[1] == 'x')
    return rest.find_first_not_of("0123456789abcdef_", 2) == rest.npos;
  if (rest.size() > 2 && rest[0] == '0' && (rest[1] == 'o' || rest[1] == 'b'))
    return rest.find_first_not_of("01234567_", 2) == rest.npos;
  return false;
}

std::string format_number(double value) {
  if (std::isnan(value)) return ".nan";
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  char buffer[64];
  const double magnitude = std::abs(value);
  const bool plain = value == 0 || (magnitude >= 1e-5 && magnitude < 1e15);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, value, format).ptr);
  // YAML 1.1 readers (PyYAML) take 1e-06 for text: a number with an exponent needs a point.
  const size_t exponent = text.find('e');
  if (text.find('.') == text.npos) text.insert(exponent == text.npos ? text.size() : exponent, ".0");
  return text;
}

std::string format_text(std::string_view text) {
  const auto plain = [&] {
    if (reads_as_other_than_text(text)) return false;
    if (std::string_view(" -?:,[]{}#&*!|>'\"%@`=<.").find(text[0]) != text.npos) {
      // A path is best left bare.
      if (!text.starts_with("./") && !text.starts_with("../")) return false;
    }
    if (text.back() == ' ' || text.back() == ':') return false;
    for (size_t i = 0; i < text.size();) {
      const size_t at = i;
      const int32_t c = next_code_point(text, i);
      if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff) return false;
      if (c == ',' || c == '[' || c == ']' || c == '{' || c == '}' || c == '"') return false;
      if (c == ':' && text[at + 1] == ' ') return false;  // the last character is not ':'
      if (c == '#' && text[at - 1] == ' ') return false;  // nor is the first '#'
    }
    return true;
  };
  if (!text.empty() && plain()) return std::string(text);
  std::string result = "\"";
  for (size_t i = 0; i < text.size();) {
    const size_t at = i;
    const int32_t c = next_code_point(text, i);
    char escape[16];
    if (c == '"' || c == '\\') {
      result += '\\';
      result += static_cast<char>(c);
    } else if (c == '\n') {
      result += "\\n";
    } else if (c == '\t') {
      result += "\\t";
    } else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff) {
      std::snprintf(escape, sizeof escape, c < 0x100 ? "\\x%02x" : "\\u%04x",
                    static_cast<unsigned>(c < 0 ? 0xfffd : c));
      if (c < 0) std::snprintf(escape, sizeof escape, "\\ufffd");
      result += escape;
    } else {
      result += text.substr(at, i - at);
    }
  }
  return result + '"';
}

}  // namespace llmtk::config
