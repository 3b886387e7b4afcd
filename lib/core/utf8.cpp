#include "core/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>

namespace llmtk {
namespace {

struct Range {
  int32_t first, last;
};

bool contains(const Range* begin, const Range* end, int32_t c) {
  const Range* range = std::lower_bound(begin, end, c, [](const Range& r, int32_t value) { return r.last < value; });
  return range != end && range->first <= c;
}

// Blocks that terminals draw in two columns: East Asian Width W and F (Unicode, UAX #11), joined into whole blocks
// where the gaps between are not assigned, and the emoji that are shown as pictures.
constexpr Range kWide[] = {
    {0x1100, 0x115f},   {0x231a, 0x231b},   {0x2329, 0x232a},   {0x23e9, 0x23ec},   {0x23f0, 0x23f0},
    {0x23f3, 0x23f3},   {0x25fd, 0x25fe},   {0x2614, 0x2615},   {0x2648, 0x2653},   {0x267f, 0x267f},
    {0x2693, 0x2693},   {0x26a1, 0x26a1},   {0x26aa, 0x26ab},   {0x26bd, 0x26be},   {0x26c4, 0x26c5},
    {0x26ce, 0x26ce},   {0x26d4, 0x26d4},   {0x26ea, 0x26ea},   {0x26f2, 0x26f3},   {0x26f5, 0x26f5},
    {0x26fa, 0x26fa},   {0x26fd, 0x26fd},   {0x2705, 0x2705},   {0x270a, 0x270b},   {0x2728, 0x2728},
    {0x274c, 0x274c},   {0x274e, 0x274e},   {0x2753, 0x2755},   {0x2757, 0x2757},   {0x2795, 0x2797},
    {0x27b0, 0x27b0},   {0x27bf, 0x27bf},   {0x2b1b, 0x2b1c},   {0x2b50, 0x2b50},   {0x2b55, 0x2b55},
    {0x2e80, 0x303e},   {0x3041, 0x3247},   {0x3250, 0x4dbf},   {0x4e00, 0xa4cf},   {0xa960, 0xa97c},
    {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe10, 0xfe19},   {0xfe30, 0xfe6b},   {0xff01, 0xff60},
    {0xffe0, 0xffe6},   {0x16fe0, 0x18cff}, {0x1aff0, 0x1b2fb}, {0x1f004, 0x1f004}, {0x1f0cf, 0x1f0cf},
    {0x1f18e, 0x1f18e}, {0x1f191, 0x1f19a}, {0x1f200, 0x1f320}, {0x1f32d, 0x1f335}, {0x1f337, 0x1f37c},
    {0x1f37e, 0x1f393}, {0x1f3a0, 0x1f3ca}, {0x1f3cf, 0x1f3d3}, {0x1f3e0, 0x1f3f0}, {0x1f3f4, 0x1f3f4},
    {0x1f3f8, 0x1f43e}, {0x1f440, 0x1f440}, {0x1f442, 0x1f4fc}, {0x1f4ff, 0x1f53d}, {0x1f54b, 0x1f567},
    {0x1f57a, 0x1f57a}, {0x1f595, 0x1f596}, {0x1f5a4, 0x1f5a4}, {0x1f5fb, 0x1f64f}, {0x1f680, 0x1f6c5},
    {0x1f6cc, 0x1f6cc}, {0x1f6d0, 0x1f6d2}, {0x1f6d5, 0x1f6df}, {0x1f6eb, 0x1f6ec}, {0x1f6f4, 0x1f6fc},
    {0x1f7e0, 0x1f7f0}, {0x1f90c, 0x1f93a}, {0x1f93c, 0x1f945}, {0x1f947, 0x1f9ff}, {0x1fa70, 0x1faff},
    {0x20000, 0x2fffd}, {0x30000, 0x3fffd}};

// Marks that join the character before them, and characters without any shape.
constexpr Range kZero[] = {{0x0000, 0x001f}, {0x007f, 0x009f},   {0x00ad, 0x00ad},  {0x0300, 0x036f}, {0x0483, 0x0489},
                           {0x0591, 0x05bd}, {0x0610, 0x061a},   {0x064b, 0x065f},  {0x093c, 0x093c}, {0x0941, 0x0948},
                           {0x094d, 0x094d}, {0x0e31, 0x0e31},   {0x0e34, 0x0e3a},  {0x0e47, 0x0e4e}, {0x1160, 0x11ff},
                           {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff},   {0x200b, 0x200f},  {0x2028, 0x202e}, {0x2060, 0x2064},
                           {0x20d0, 0x20f0}, {0x302a, 0x302d},   {0x3099, 0x309a},  {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f},
                           {0xfeff, 0xfeff}, {0x1f3fb, 0x1f3ff}, {0xe0000, 0xe01ef}};

int width_of(int32_t c) {
  if (c < 0) return 1;  // shown as a replacement character
  if (c >= 0x20 && c < 0x7f) return 1;
  if (contains(std::begin(kZero), std::end(kZero), c)) return 0;
  return contains(std::begin(kWide), std::end(kWide), c) ? 2 : 1;
}

}  // namespace

int32_t next_code_point(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const size_t start = position++;
  const unsigned char lead = byte(start);
  if (lead < 0x80) return lead;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || start + length > text.size()) return -1;
  int32_t value = lead & (0x7f >> length);
  for (size_t i = start + 1; i < start + length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return -1;
    value = (value << 6) | (byte(i) & 0x3f);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  if (overlong || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return -1;
  position = start + length;
  return value;
}

size_t find_invalid_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    for (uint64_t word; i + 8 <= text.size(); i += 8) {  // eight bytes of ASCII at once
      std::memcpy(&word, text.data() + i, 8);
      if (word & 0x8080808080808080u) break;
    }
    const size_t start = i;
    if (i < text.size() && next_code_point(text, i) < 0) return start;
  }
  return text.npos;
}

size_t count_code_points(std::string_view text) {
  size_t count = 0;
  for (size_t i = 0; i < text.size(); ++count) next_code_point(text, i);
  return count;
}

int display_width(std::string_view text) {
  int width = 0;
  for (size_t i = 0; i < text.size();) width += width_of(next_code_point(text, i));
  return width;
}

std::string_view cut_to_width(std::string_view text, int width) {
  int used = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    used += width_of(next_code_point(text, i));
    if (used > width) return text.substr(0, start);
  }
  return text;
}

std::string printable(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const int32_t c = next_code_point(text, i);
    const bool control = c < 0x20 || (c >= 0x7f && c < 0xa0);  // -1 too
    if (!control || c == '\n' || c == '\t') {
      out += text.substr(begin, i - begin);
      continue;
    }
    for (const char byte : text.substr(begin, i - begin)) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned char>(byte));
      out += escaped;
    }
  }
  return out;
}

std::string one_line(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t end = std::min(text.find_first_of("\n\r\t", i), text.size());
    out += printable(text.substr(i, end - i));
    if (end < text.size()) out += text[end] == '\n' ? "\\n" : text[end] == '\r' ? "\\r" : "\\t";
    i = end + 1;
  }
  return out;
}

std::string in_quotes(std::string_view name) {
  std::string quoted = "'";
  quoted += one_line(cut_to_width(name, 80));
  quoted += "'";
  return quoted;
}

}  // namespace llmtk
