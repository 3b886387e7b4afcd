#include "text/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "core/utf8.h"

namespace llmtk::text::jinja {
namespace {

utf8proc_category_t category(int32_t c) { return utf8proc_category(c); }

struct CodeRange {
  int32_t first, last;
};

template <size_t N>
bool in(const CodeRange (&ranges)[N], int32_t c) {
  return std::ranges::any_of(ranges, [&](const CodeRange& range) { return range.first <= c && c <= range.last; });
}

// Digits that are no decimals: superscripts, subscripts, circled and parenthesized ones (Numeric_Type=Digit).
constexpr CodeRange kOtherDigits[] = {{0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
                                      {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
                                      {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
                                      {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
                                      {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};

/// What a character becomes where that is more than one (Unicode's SpecialCasing.txt, without conditions).
struct SpecialCase {
  int32_t code;
  const char *title, *upper;
};
constexpr SpecialCase kSpecialCases[] = {
    {0x00DF, "Ss", "SS"},   {0x0149, "ʼN", "ʼN"},   {0x01F0, "J̌", "J̌"},   {0x0390, "Ϊ́", "Ϊ́"},   {0x03B0, "Ϋ́", "Ϋ́"},
    {0x0587, "Եւ", "ԵՒ"},   {0x1E96, "H̱", "H̱"},     {0x1E97, "T̈", "T̈"},   {0x1E98, "W̊", "W̊"},   {0x1E99, "Y̊", "Y̊"},
    {0x1E9A, "Aʾ", "Aʾ"},   {0x1F50, "Υ̓", "Υ̓"},     {0x1F52, "Υ̓̀", "Υ̓̀"},   {0x1F54, "Υ̓́", "Υ̓́"},   {0x1F56, "Υ̓͂", "Υ̓͂"},
    {0x1FB2, "Ὰͅ", "ᾺΙ"},    {0x1FB3, "ᾼ", "ΑΙ"},    {0x1FB4, "Άͅ", "ΆΙ"},  {0x1FB6, "Α͂", "Α͂"},   {0x1FB7, "ᾼ͂", "Α͂Ι"},
    {0x1FBC, "ᾼ", "ΑΙ"},    {0x1FC2, "Ὴͅ", "ῊΙ"},    {0x1FC3, "ῌ", "ΗΙ"},  {0x1FC4, "Ήͅ", "ΉΙ"},  {0x1FC6, "Η͂", "Η͂"},
    {0x1FC7, "ῌ͂", "Η͂Ι"},    {0x1FCC, "ῌ", "ΗΙ"},    {0x1FD2, "Ϊ̀", "Ϊ̀"},   {0x1FD3, "Ϊ́", "Ϊ́"},   {0x1FD6, "Ι͂", "Ι͂"},
    {0x1FD7, "Ϊ͂", "Ϊ͂"},     {0x1FE2, "Ϋ̀", "Ϋ̀"},     {0x1FE3, "Ϋ́", "Ϋ́"},   {0x1FE4, "Ρ̓", "Ρ̓"},   {0x1FE6, "Υ͂", "Υ͂"},
    {0x1FE7, "Ϋ͂", "Ϋ͂"},     {0x1FF2, "Ὼͅ", "ῺΙ"},    {0x1FF3, "ῼ", "ΩΙ"},  {0x1FF4, "Ώͅ", "ΏΙ"},  {0x1FF6, "Ω͂", "Ω͂"},
    {0x1FF7, "ῼ͂", "Ω͂Ι"},    {0x1FFC, "ῼ", "ΩΙ"},    {0xFB00, "Ff", "FF"}, {0xFB01, "Fi", "FI"}, {0xFB02, "Fl", "FL"},
    {0xFB03, "Ffi", "FFI"}, {0xFB04, "Ffl", "FFL"}, {0xFB05, "St", "ST"}, {0xFB06, "St", "ST"}, {0xFB13, "Մն", "ՄՆ"},
    {0xFB14, "Մե", "ՄԵ"},   {0xFB15, "Մի", "ՄԻ"},   {0xFB16, "Վն", "ՎՆ"}, {0xFB17, "Մխ", "ՄԽ"}};

const SpecialCase* special_case(int32_t c) {
  const auto* found = std::ranges::lower_bound(kSpecialCases, c, {}, &SpecialCase::code);
  return found != std::end(kSpecialCases) && found->code == c ? found : nullptr;
}

void append_upper(int32_t c, std::string& out) {
  if (const SpecialCase* special = special_case(c)) {
    out += special->upper;
  } else if (c >= 0x1F80 && c <= 0x1FAF) {  // Greek with an iota below: the capital, then a capital iota
    constexpr int32_t capitals[] = {0x1F08, 0x1F28, 0x1F68};
    append_code_point(capitals[(c - 0x1F80) / 16] + c % 8, out);
    out += "Ι";
  } else {
    append_code_point(utf8proc_toupper(c), out);
  }
}

void append_title(int32_t c, std::string& out) {
  if (const SpecialCase* special = special_case(c))
    out += special->title;
  else
    append_code_point(utf8proc_totitle(c), out);
}

bool is_cased(int32_t c) { return is_upper(c) || is_lower(c) || is_title(c); }

/// What may stand between the letters of a word without ending it (Case_Ignorable).
bool is_case_ignorable(int32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      break;
  }
  constexpr int32_t others[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,  0x5F4,  0x2018, 0x2019,
                                0x2024, 0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
  return std::ranges::find(others, c) != std::end(others);
}

std::vector<int32_t> code_points(std::string_view text) {
  std::vector<int32_t> out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) out.push_back(next_code_point(text, i));
  return out;
}

/// Whether a capital sigma at `at` ends a word: its small form is another then.
bool is_final(const std::vector<int32_t>& text, size_t at) {
  size_t before = at;
  while (before > 0 && is_case_ignorable(text[before - 1])) --before;
  if (before == 0 || !is_cased(text[before - 1])) return false;
  size_t after = at + 1;
  while (after < text.size() && is_case_ignorable(text[after])) ++after;
  return after == text.size() || !is_cased(text[after]);
}

void append_lower(const std::vector<int32_t>& text, size_t at, std::string& out) {
  const int32_t c = text[at];
  if (c == 0x3A3)
    out += is_final(text, at) ? "ς" : "σ";
  else if (c == 0x130)
    out += "i̇";
  else
    append_code_point(utf8proc_tolower(c), out);
}

}  // namespace

bool is_space(int32_t c) {
  constexpr CodeRange spaces[] = {{0x09, 0x0D},     {0x1C, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                                  {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                                  {0x205F, 0x205F}, {0x3000, 0x3000}};
  return in(spaces, c);
}

bool is_alpha(int32_t c) {
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(int32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }
bool is_digit(int32_t c) { return is_decimal(c) || in(kOtherDigits, c); }
bool is_upper(int32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(int32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || c == 0xAA || c == 0xBA; }
bool is_title(int32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }

bool is_printable(int32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

void append_code_point(int32_t c, std::string& out) {
  utf8proc_uint8_t bytes[4];
  out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(utf8proc_encode_char(c, bytes)));
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const int32_t c : code_points(text)) append_upper(c, out);
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const auto points = code_points(text);
  for (size_t i = 0; i < points.size(); ++i) append_lower(points, i, out);
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  const auto points = code_points(text);
  bool inside = false;
  for (size_t i = 0; i < points.size(); ++i) {
    inside ? append_lower(points, i, out) : append_title(points[i], out);
    inside = is_cased(points[i]);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  const auto points = code_points(text);
  for (size_t i = 0; i < points.size(); ++i) i == 0 ? append_title(points[i], out) : append_lower(points, i, out);
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  const auto points = code_points(text);
  for (size_t i = 0; i < points.size(); ++i) {
    if (is_upper(points[i]))
      append_lower(points, i, out);
    else if (is_lower(points[i]))
      append_upper(points[i], out);
    else
      append_code_point(points[i], out);
  }
  return out;
}

size_t count(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) next_code_point(text, at);
  return at;
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    next_code_point(text, i);
    out.push_back(text.substr(begin, i - begin));
  }
  return out;
}

namespace {

/// The last character of `text`, which is not empty.
std::string_view last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

int32_t only_code_point(std::string_view character) {
  size_t at = 0;
  return next_code_point(character, at);
}

}  // namespace

std::string_view strip(std::string_view text, bool left, bool right, const std::string_view* chars) {
  const auto goes = [&](std::string_view character) {
    return chars ? chars->find(character) != chars->npos : is_space(only_code_point(character));
  };
  while (left && !text.empty()) {
    const std::string_view first = text.substr(0, byte_offset(text, 1));
    if (!goes(first)) break;
    text.remove_prefix(first.size());
  }
  while (right && !text.empty()) {
    const std::string_view last = last_character(text);
    if (!goes(last)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  constexpr CodeRange ends[] = {{0x0A, 0x0D}, {0x1C, 0x1E}, {0x85, 0x85}, {0x2028, 0x2029}};
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t end = i;
    const int32_t c = next_code_point(text, i);
    if (!in(ends, c)) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.push_back(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::vector<std::string_view> split_words(std::string_view text, int64_t most, bool from_right) {
  std::vector<std::string_view> words;
  while (true) {
    text = strip(text, !from_right, from_right);
    if (text.empty()) break;
    if (most >= 0 && static_cast<int64_t>(words.size()) >= most) {
      words.push_back(text);
      break;
    }
    std::string_view rest = text;
    if (from_right) {
      while (!rest.empty() && !is_space(only_code_point(last_character(rest))))
        rest.remove_suffix(last_character(rest).size());
      words.push_back(text.substr(rest.size()));
    } else {
      while (!rest.empty() && !is_space(only_code_point(rest))) rest.remove_prefix(byte_offset(rest, 1));
      words.push_back(text.substr(0, text.size() - rest.size()));
    }
    text = rest;
  }
  if (from_right) std::ranges::reverse(words);
  return words;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t most,
                                       bool from_right) {
  std::vector<std::string_view> parts;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == text.npos) break;
    parts.push_back(from_right ? text.substr(at + separator.size()) : text.substr(0, at));
    text = from_right ? text.substr(0, at) : text.substr(at + separator.size());
  }
  parts.push_back(text);
  if (from_right) std::ranges::reverse(parts);
  return parts;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t most) {
  const auto another = [&] { return most < 0 || most-- > 0; };
  std::string out;
  if (from.empty()) {  // before every character and at the end
    for (const std::string_view character : characters(text)) {
      if (another()) out += to;
      out += character;
    }
    if (another()) out += to;
    return out;
  }
  size_t at = 0;
  while (another()) {
    const size_t found = text.find(from, at);
    if (found == text.npos) break;
    out += text.substr(at, found - at);
    out += to;
    at = found + from.size();
  }
  return out += text.substr(at);
}

}  // namespace llmtk::text::jinja
