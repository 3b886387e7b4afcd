#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <new>

#include "core/error.h"
#include "core/utf8.h"
#include "text/unicode_versions.h"

namespace llmtk::text {
namespace {

struct Range {
  char32_t first, last;
};

// Assigned by Unicode 15.1 and 16, later than the utf8proc of Debian 12 (Unicode 15.0).
constexpr Range kNewLetters[] = {{0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
                                 {0x10D4A, 0x10D65}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389},
                                 {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113B7},
                                 {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0}, {0x13460, 0x143FA},
                                 {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
                                 {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range kNewNumbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x16130, 0x16139},
                                 {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
constexpr Range kNewMarks[] = {{0x0897, 0x0897},   {0x10D69, 0x10D6D}, {0x10EFC, 0x10EFC}, {0x113B8, 0x113C0},
                               {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D0},
                               {0x113D2, 0x113D2}, {0x113E1, 0x113E2}, {0x11F5A, 0x11F5A}, {0x1611E, 0x1612F},
                               {0x1E5EE, 0x1E5EF}};
// Numbers of Unicode 17: the Digits pre-tokenizer follows a newer table than the patterns do.
constexpr Range kNewestNumbers[] = {{0x11DE0, 0x11DE9}, {0x16FF4, 0x16FF6}};
constexpr Range kAsciiSigns[] = {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}};
constexpr Range kSpaces[] = {{0x09, 0x0D},     {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},     {0x1680, 0x1680},
                             {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}};
// Word characters outside the categories L, M, Nd, Nl and Pc: joiners and the circled letters.
constexpr Range kOtherWord[] = {
    {0x200C, 0x200D}, {0x24B6, 0x24E9}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};

uint8_t category_class(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return kLetter | kWord;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      return kNumber | kNumeric | kWord;
    case UTF8PROC_CATEGORY_NO:
      return kNumber | kNumeric;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      return kWord;
    case UTF8PROC_CATEGORY_PC:
      return kWord;
    default:
      return 0;
  }
}

}  // namespace

const CharTable& CharTable::get() {
  static const CharTable table;
  return table;
}

CharTable::CharTable() {
  std::string all(kEnd, '\0');
  // Planes 4 to 13 and above 14 hold no letters, numbers or marks.
  const auto fill = [&](char32_t first, char32_t end) {
    for (char32_t c = first; c < end; ++c)
      all[c] = static_cast<char>(category_class(c) | (is_old_punctuation(c) ? kPunctuation : 0));
  };
  fill(0, 0x3400);
  for (char32_t c = 0x3400; c < 0x4DC0; ++c)
    all[c] = kLetter | kWord;  // the unified ideographs, by far the largest blocks
  fill(0x4DC0, 0x4E00);
  for (char32_t c = 0x4E00; c < 0xA000; ++c) all[c] = kLetter | kWord;
  fill(0xA000, 0xAC00);
  for (char32_t c = 0xAC00; c < 0xD7A4; ++c) all[c] = kLetter | kWord;  // Hangul syllables
  fill(0xD7A4, 0xD800);
  fill(0xF900, 0x32400);
  fill(0xE0000, 0xE0200);
  const auto add = [&](const auto& ranges, int bits) {
    for (const Range& range : ranges)
      for (char32_t c = range.first; c <= range.last; ++c) all[c] = static_cast<char>(all[c] | bits);
  };
  add(kNewLetters, kLetter | kWord);
  add(kNewNumbers, kNumber | kNumeric | kWord);
  add(kNewMarks, kWord);
  add(kNewestNumbers, kNumeric);
  add(kSpaces, kSpace);
  add(kAsciiSigns, kPunctuation);
  add(kOtherWord, kWord);

  std::map<std::string_view, uint16_t> seen;
  for (size_t block = 0; block < std::size(blocks_); ++block) {
    const std::string_view part = std::string_view(all).substr(block << 8, 256);
    const auto [it, is_new] = seen.try_emplace(part, static_cast<uint16_t>(seen.size()));
    if (is_new) classes_ += part;
    blocks_[block] = it->second;
  }
  for (int c = 0; c < 256; ++c) ascii_[c] = c < 0x80 ? static_cast<uint8_t>(all[c]) : kMultibyte;
}

Utf8Char decode_utf8(const char* p, const char* end) {
  const auto* s = reinterpret_cast<const unsigned char*>(p);
  const size_t left = static_cast<size_t>(end - p);
  const unsigned char a = s[0];
  if (a < 0x80) return {a, 1};
  const auto continues = [](unsigned char c) { return (c & 0xC0) == 0x80; };
  if (a >= 0xE0 && a < 0xF0) {
    if (left < 3 || !continues(s[1]) || !continues(s[2])) return {kInvalid, 1};
    const char32_t c = (char32_t{a} & 0x0F) << 12 | (char32_t{s[1]} & 0x3F) << 6 | (s[2] & 0x3F);
    if (c < 0x800 || (c >= 0xD800 && c < 0xE000)) return {kInvalid, 1};
    return {c, 3};
  }
  if (a >= 0xC2 && a < 0xE0) {
    if (left < 2 || !continues(s[1])) return {kInvalid, 1};
    return {(char32_t{a} & 0x1F) << 6 | (s[1] & 0x3Fu), 2};
  }
  if (a >= 0xF0 && a < 0xF5) {
    if (left < 4 || !continues(s[1]) || !continues(s[2]) || !continues(s[3])) return {kInvalid, 1};
    const char32_t c =
        (char32_t{a} & 0x07) << 18 | (char32_t{s[1]} & 0x3F) << 12 | (char32_t{s[2]} & 0x3F) << 6 | (s[3] & 0x3F);
    if (c < 0x10000 || c >= 0x110000) return {kInvalid, 1};
    return {c, 4};
  }
  return {kInvalid, 1};
}

Utf8Char last_character(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && text.size() - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  const Utf8Char c = decode_utf8(text.data() + begin, text.data() + text.size());
  if (c.size == text.size() - begin) return c;
  return {kInvalid, 1};
}

void append_utf8(char32_t c, std::string& out) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
            static_cast<char>(0x80 | (c & 0x3F))};
  } else {
    out += {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
            static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
}

namespace {

/// The length of the longest prefix of an ill-formed sequence that some well-formed sequence begins with (at least 1),
/// and whether it runs to the end of the text.
size_t ill_formed_part(std::string_view text, bool& at_end) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char a = byte(0);
  at_end = false;
  size_t need = 0;
  if (a >= 0xC2 && a < 0xE0) need = 2;
  if (a >= 0xE0 && a < 0xF0) need = 3;
  if (a >= 0xF0 && a < 0xF5) need = 4;
  if (need == 0) return 1;
  unsigned char low = 0x80, high = 0xBF;
  if (a == 0xE0) low = 0xA0;
  if (a == 0xED) high = 0x9F;
  if (a == 0xF0) low = 0x90;
  if (a == 0xF4) high = 0x8F;
  size_t i = 1;
  for (; i < need && i < text.size(); ++i) {
    if (byte(i) < low || byte(i) > high) return i;
    low = 0x80, high = 0xBF;
  }
  at_end = i < need;
  return i;
}

}  // namespace

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  while (true) {
    const size_t valid = std::min(find_invalid_utf8(text), text.size());
    out += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) return out;
    bool at_end;
    text.remove_prefix(ill_formed_part(text, at_end));
    out += "\xEF\xBF\xBD";
  }
}

size_t incomplete_utf8_suffix(std::string_view text) {
  for (size_t n = 1; n <= 3 && n <= text.size(); ++n) {
    const std::string_view tail = text.substr(text.size() - n);
    const auto a = static_cast<unsigned char>(tail[0]);
    if (a < 0x80) return 0;
    if (a < 0xC0) continue;
    bool at_end;
    return ill_formed_part(tail, at_end) == n && at_end ? n : 0;
  }
  return 0;
}

namespace {

void append_form(UnicodeForm form, std::string_view text, std::string& out) {
  const bool composes = form == UnicodeForm::nfc || form == UnicodeForm::nfkc;
  const bool compatible = form == UnicodeForm::nfkc || form == UnicodeForm::nfkd;
  int options = UTF8PROC_STABLE | (composes ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatible) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const auto size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &mapped, static_cast<utf8proc_option_t>(options));
  if (size == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  LLMTK_CHECK(size >= 0, utf8proc_errmsg(size));
  out.append(reinterpret_cast<const char*>(mapped), static_cast<size_t>(size));
  std::free(mapped);
}

}  // namespace

bool to_unicode_form(UnicodeForm form, std::string_view text, std::string& out) {
  if (std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return false;
  // What is left alone begins a text of its own: none of it is a mark.
  out.clear();
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Char c = decode_utf8(text.data() + at, text.data() + text.size());
    if (c.code == kInvalid || has_new_decomposition(c.code)) {
      if (at > begin) append_form(form, text.substr(begin, at - begin), out);
      out += text.substr(at, c.size);
      begin = at + c.size;
    }
    at += c.size;
  }
  if (begin < text.size()) append_form(form, text.substr(begin), out);
  return out != text;
}

void append_lowercase(char32_t code, std::string& out) {
  if (code == 0x130)  // the one character whose lower case is two: i and a dot above
    out += "i\xCC\x87";
  else
    append_utf8(lowercase_of(code), out);
}

}  // namespace llmtk::text
