#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "core/error.h"
#include "core/utf8.h"
#include "text/jinja/unicode.h"

namespace llmtk::text::jinja {
namespace {

/// With every kind of line end as a line feed, and without the last one.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex_digit(char c) { return is_ascii_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : source_(normalize(source)), where_(where) {
    if (const size_t bad = find_invalid_utf8(source_); bad != std::string_view::npos) {
      at_ = bad;
      fail("the template is not UTF-8");
    }
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) read_text();
    push(TokenKind::end, {}, at_);
    return std::move(tokens_);
  }

 private:
  // --- places and errors ---

  /// Of a byte at or behind the last one asked for.
  Position position(size_t offset) {
    for (; located_ < offset; next_code_point(source_, located_)) {
      const bool newline = source_[located_] == '\n';
      place_.line += newline;
      place_.column = newline ? 1 : place_.column + 1;
    }
    return place_;
  }
  [[noreturn]] void fail(const std::string& what, const std::string& got = {}, const std::string& expected = {}) {
    fail_at(where_, position(at_), what, got, expected);
  }
  Token& push(TokenKind kind, std::string text, size_t begin) {
    tokens_.push_back({.kind = kind, .text = std::move(text), .at = position(begin)});
    return tokens_.back();
  }

  // --- between tags ---

  bool here(std::string_view text) const { return std::string_view(source_).substr(at_).starts_with(text); }
  void skip_space() {
    while (at_ < source_.size()) {
      size_t next = at_;
      if (!is_space(next_code_point(source_, next))) break;
      at_ = next;
    }
  }
  char sign_here() const {
    return at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+') ? source_[at_] : '\0';
  }

  /// The text up to the next tag, and the tag.
  void read_text() {
    const size_t begin = at_;
    size_t tag = begin;
    while ((tag = source_.find('{', tag)) != std::string::npos) {
      if (tag + 1 < source_.size() && std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos) break;
      ++tag;
    }
    if (tag == std::string::npos) {
      at_ = source_.size();
      push(TokenKind::text, source_.substr(begin), begin);
      return;
    }
    const char type = source_[tag + 1];
    at_ = tag + 2;
    const char sign = sign_here();
    at_ += sign != 0;
    push_text(begin, tag, sign, type != '{');
    line_starting_ = false;
    if (type == '#') return skip_comment(tag);
    if (type == '%' && begin_raw()) return read_raw();
    push(type == '{' ? TokenKind::variable_begin : TokenKind::block_begin, {}, tag);
    read_tag(type == '{');
  }

  /// `sign`: what stands right behind the tag's beginning. '-' strips the white space before it; without a sign what
  /// indents a block or a comment goes.
  void push_text(size_t begin, size_t end, char sign, bool strips_indent) {
    std::string_view text = std::string_view(source_).substr(begin, end - begin);
    if (sign == '-') {
      text = strip(text, false, true);
    } else if (sign != '+' && strips_indent) {
      const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
      if ((line > 0 || line_starting_) && strip(text.substr(line), true, false).empty()) text = text.substr(0, line);
    }
    if (!text.empty()) push(TokenKind::text, std::string(text), begin);
  }

  /// Behind a tag's end: '-' strips the white space that follows, otherwise one line feed goes where `trims`.
  void after_tag(char sign, bool trims) {
    const size_t begin = at_;
    if (sign == '-')
      skip_space();
    else if (sign != '+' && trims && at_ < source_.size() && source_[at_] == '\n')
      ++at_;
    line_starting_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void skip_comment(size_t tag) {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) {
      at_ = tag;
      fail("a comment without end", {}, "#}");
    }
    const char before = end > at_ ? source_[end - 1] : '\0';
    at_ = end + 2;
    after_tag(before == '-' || before == '+' ? before : '\0', true);
  }

  /// Whether "raw %}" follows; at_ is moved behind it then.
  bool begin_raw() {
    const size_t begin = at_;
    skip_space();
    if (here("raw")) {
      at_ += 3;
      skip_space();
      const bool strips = here("-%}");
      if (strips || here("%}")) {
        at_ += strips ? 3 : 2;
        after_tag(strips ? '-' : '+', false);
        return true;
      }
    }
    at_ = begin;
    return false;
  }

  void read_raw() {
    const size_t begin = at_;
    for (size_t tag = begin; (tag = source_.find("{%", tag)) != std::string::npos; tag += 2) {
      at_ = tag + 2;
      const char sign = sign_here();
      at_ += sign != 0;
      skip_space();
      if (!here("endraw")) continue;
      at_ += 6;
      skip_space();
      const char end_sign = sign_here();
      at_ += end_sign != 0;
      if (!here("%}")) continue;
      at_ += 2;
      push_text(begin, tag, sign, true);
      return after_tag(end_sign, true);
    }
    at_ = begin;
    fail("a raw block without end", {}, "{% endraw %}");
  }

  // --- inside a tag ---

  void read_tag(bool variable) {
    std::string open;  // the brackets that are open
    while (true) {
      skip_space();
      if (at_ >= source_.size()) return;
      if (open.empty() && end_tag(variable)) return;
      read_word(open);
    }
  }

  bool end_tag(bool variable) {
    const std::string_view end = variable ? "}}" : "%}";
    const char sign = sign_here();
    if (sign && (variable ? sign == '-' : true) && std::string_view(source_).substr(at_ + 1).starts_with(end)) {
      push(variable ? TokenKind::variable_end : TokenKind::block_end, {}, at_);
      at_ += 3;
      after_tag(sign, !variable);
      return true;
    }
    if (!here(end)) return false;
    push(variable ? TokenKind::variable_end : TokenKind::block_end, {}, at_);
    at_ += 2;
    after_tag('\0', !variable);
    return true;
  }

  void read_word(std::string& open) {
    size_t next = at_;
    const int32_t c = next_code_point(source_, next);
    if (c == '\'' || c == '"') return read_string();
    if (c < 0x80 && is_ascii_digit(static_cast<char>(c))) return read_number();
    if (c == '_' || is_alpha(c)) return read_name();
    read_operator(open);
  }

  void read_name() {
    const size_t begin = at_;
    for (size_t next = begin; next < source_.size();) {
      const int32_t c = next_code_point(source_, next);
      if (c != '_' && !is_alpha(c) && !is_decimal(c)) break;
      at_ = next;
    }
    push(TokenKind::name, source_.substr(begin, at_ - begin), begin);
  }

  /// Digits with single underscores between them, from `from`; where they end (`from` itself where there are none).
  template <class IsDigit>
  size_t digits_end(size_t from, const IsDigit& is_digit) const {
    size_t end = from;
    for (size_t i = from; i < source_.size(); ++i) {
      if (is_digit(source_[i]))
        end = i + 1;
      else if (source_[i] != '_' || i != end || i == from)
        break;
    }
    return end;
  }

  void read_number() {
    const size_t begin = at_;
    const bool behind_dot = begin > 0 && source_[begin - 1] == '.';
    if (!behind_dot && read_float(begin)) return;
    int base = 10;
    size_t end = digits_end(begin, is_ascii_digit);
    if (source_[begin] == '0') {
      const char mark = begin + 1 < source_.size() ? static_cast<char>(source_[begin + 1] | 0x20) : '\0';
      const auto binary = [](char c) { return c == '0' || c == '1'; };
      const auto octal = [](char c) { return c >= '0' && c <= '7'; };
      size_t digits = begin + 2;
      digits += digits < source_.size() && source_[digits] == '_';
      const size_t marked = mark == 'x'   ? digits_end(digits, is_hex_digit)
                            : mark == 'o' ? digits_end(digits, octal)
                            : mark == 'b' ? digits_end(digits, binary)
                                          : digits;
      if (marked > digits) {
        base = mark == 'x' ? 16 : mark == 'o' ? 8 : 2;
        end = marked;
      } else {
        end = digits_end(begin, [](char c) { return c == '0'; });
      }
    }
    std::string digits = source_.substr(begin + (base == 10 ? 0 : 2), end - begin - (base == 10 ? 0 : 2));
    std::erase(digits, '_');
    int64_t value = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), value, base).ec != std::errc())
      fail("a whole number of more than 64 bits", digits.substr(0, 40));
    at_ = end;
    push(TokenKind::integer, {}, begin).integer = value;
  }

  bool read_float(size_t begin) {
    const size_t whole = digits_end(begin, is_ascii_digit);
    size_t end = whole;
    if (end < source_.size() && source_[end] == '.') {
      const size_t fraction = digits_end(end + 1, is_ascii_digit);
      if (fraction > end + 1) end = fraction;
    }
    if (end < source_.size() && (source_[end] | 0x20) == 'e') {
      size_t exponent = end + 1;
      exponent += exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-');
      const size_t after = digits_end(exponent, is_ascii_digit);
      if (after > exponent) end = after;
    }
    if (end == whole) return false;
    std::string digits = source_.substr(begin, end - begin);
    std::erase(digits, '_');
    at_ = end;
    push(TokenKind::number, {}, begin).number = std::strtod(digits.c_str(), nullptr);
    return true;
  }

  void read_operator(std::string& open) {
    static constexpr std::array<std::string_view, 27> operators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                   "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                   ">",  "<",  "=",  ".",  ":",  "|",  ",", ";", ""};
    const auto found = std::ranges::find_if(operators, [&](std::string_view each) { return here(each); });
    if (found->empty()) fail("a character that means nothing here", one_character());
    const char c = found->size() == 1 ? found->front() : '\0';
    constexpr std::string_view kOpening = "([{", kClosing = ")]}";
    if (c && kOpening.find(c) != std::string_view::npos) {
      open += c;
    } else if (c && kClosing.find(c) != std::string_view::npos) {
      if (open.empty()) fail("a bracket that nothing opens", "'" + std::string(1, c) + "'");
      const char expected = kClosing[kOpening.find(open.back())];
      if (c != expected)
        fail("brackets do not match", "'" + std::string(1, c) + "'", "'" + std::string(1, expected) + "'");
      open.pop_back();
    }
    push(TokenKind::op, std::string(*found), at_);
    at_ += found->size();
  }

  std::string one_character() const {
    size_t next = at_;
    next_code_point(source_, next);
    return "'" + printable(std::string_view(source_).substr(at_, next - at_)) + "'";
  }

  // --- strings ---

  void read_string() {
    const size_t begin = at_;
    const char quote = source_[begin];
    std::string value;
    for (++at_; at_ < source_.size() && source_[at_] != quote;) {
      if (source_[at_] == '\\')
        read_escape(value);
      else
        value += source_[at_++];
    }
    if (at_ >= source_.size()) {
      at_ = begin;
      fail("a string without end", {}, std::string(1, quote));
    }
    ++at_;
    push(TokenKind::string, std::move(value), begin);
  }

  /// Python's escapes; a backslash before any other character stands for itself.
  void read_escape(std::string& value) {
    constexpr std::string_view kEscapes = "\\'\"abfnrtv";
    constexpr std::string_view kMeanings = "\\'\"\a\b\f\n\r\t\v";
    if (at_ + 1 >= source_.size()) {
      ++at_;
      return;
    }
    const char c = source_[at_ + 1];
    if (const size_t known = kEscapes.find(c); known != kEscapes.npos) {
      value += kMeanings[known];
      at_ += 2;
    } else if (c == '\n') {
      at_ += 2;
    } else if (c >= '0' && c <= '7') {
      read_octal(value);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      read_hex(value, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    } else if (c == 'N') {
      fail("characters by their names (\\N{...}) are not supported");
    } else if (static_cast<unsigned char>(c) >= 0x80) {
      read_escaped_character(value);
    } else {
      value += '\\';
      ++at_;
    }
  }

  void read_octal(std::string& value) {
    int code = 0;
    size_t i = at_ + 1;
    for (; i < at_ + 4 && i < source_.size() && source_[i] >= '0' && source_[i] <= '7'; ++i)
      code = code * 8 + (source_[i] - '0');
    append_code_point(code, value);
    at_ = i;
  }

  void read_hex(std::string& value, size_t digits) {
    const std::string_view text = std::string_view(source_).substr(at_ + 2, digits);
    uint32_t code = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), code, 16);
    if (text.size() != digits || parsed.ptr != text.data() + digits || code > 0x10FFFF ||
        (code >= 0xD800 && code < 0xE000))
      fail("a broken escape in a string", source_.substr(at_, 2),
           std::to_string(digits) + " hexadecimal digits of a character");
    append_code_point(static_cast<int32_t>(code), value);
    at_ += 2 + digits;
  }

  /// A backslash before a character beyond ASCII: jinja2 escapes that character first, which then stands as its escape.
  void read_escaped_character(std::string& value) {
    ++at_;
    const int32_t c = next_code_point(source_, at_);
    char escape[16];
    std::snprintf(escape, sizeof escape,
                  c < 0x100     ? "\\x%02x"
                  : c < 0x10000 ? "\\u%04x"
                                : "\\U%08x",
                  static_cast<unsigned>(c));
    value += escape;
  }

  const std::string source_;
  const std::string& where_;
  size_t at_ = 0;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
  size_t located_ = 0;
  Position place_;
};

}  // namespace

void fail_at(const std::string& where, Position at, const std::string& what, const std::string& got,
             const std::string& expected, const std::string& hint) {
  throw Error(Exit::file, {.what = what,
                           .where = where + ":" + std::to_string(at.line) + ":" + std::to_string(at.column),
                           .got = got,
                           .expected = expected,
                           .hint = hint});
}

std::string Token::shown() const {
  switch (kind) {
    case TokenKind::text:
      return "text";
    case TokenKind::variable_begin:
      return "'{{'";
    case TokenKind::variable_end:
      return "'}}'";
    case TokenKind::block_begin:
      return "'{%'";
    case TokenKind::block_end:
      return "'%}'";
    case TokenKind::string:
      return "a string";
    case TokenKind::integer:
    case TokenKind::number:
      return "a number";
    case TokenKind::end:
      return "the end of the template";
    default:
      return "'" + printable(text) + "'";
  }
}

std::vector<Token> tokenize(std::string_view source, const std::string& where) { return Lexer(source, where).run(); }

}  // namespace llmtk::text::jinja
