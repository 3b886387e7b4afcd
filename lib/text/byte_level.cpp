#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace llmtk::text {
namespace {

struct Alphabet {
  std::array<char32_t, 256> chars;
  std::array<int16_t, 324> bytes;  // 188 printable ones below 256, the other 68 from 256 on
  Alphabet() {
    bytes.fill(-1);
    char32_t next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      chars[b] = printable ? static_cast<char32_t>(b) : next++;
      bytes[chars[b]] = static_cast<int16_t>(b);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

char32_t byte_to_char(unsigned char byte) { return alphabet().chars[byte]; }
int char_to_byte(char32_t code) { return code < alphabet().bytes.size() ? alphabet().bytes[code] : -1; }

std::string spell_bytes(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) append_utf8(byte_to_char(static_cast<unsigned char>(b)), out);
  return out;
}

std::optional<std::string> unspell_bytes(std::string_view token) {
  std::string out;
  out.reserve(token.size());
  for (const char *p = token.data(), *end = p + token.size(); p < end;) {
    const Utf8Char c = decode_utf8(p, end);
    const int byte = char_to_byte(c.code);
    if (byte < 0) return std::nullopt;
    out += static_cast<char>(byte);
    p += c.size;
  }
  return out;
}

}  // namespace llmtk::text
