#include "data/utf8.h"

#include <cstddef>

namespace llmtk::data {
namespace {

struct Sequence {
  size_t size;  ///< bytes of the character, or of the ill-formed part
  bool valid;
};

/// The character or ill-formed part at `i` (Unicode, table 3-7). text[i] is not ASCII.
Sequence sequence_at(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
  const unsigned lead = byte(i);
  size_t length = 0;
  unsigned low = 0x80, high = 0xBF;  // what the second byte may be
  if (lead >= 0xC2 && lead <= 0xDF) length = 2;
  if (lead >= 0xE0 && lead <= 0xEF) length = 3;
  if (lead >= 0xF0 && lead <= 0xF4) length = 4;
  if (length == 0) return {1, false};
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t k = 1; k < length; ++k) {
    if (byte(i + k) < low || byte(i + k) > high) return {k, false};
    low = 0x80;
    high = 0xBF;
  }
  return {length, true};
}

}  // namespace

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const bool ascii = static_cast<unsigned char>(text[i]) < 0x80;
    const Sequence sequence = ascii ? Sequence{1, true} : sequence_at(text, i);
    if (sequence.valid) {
      out.append(text, i, sequence.size);
    } else {
      out += "\xEF\xBF\xBD";
    }
    i += sequence.size;
  }
  return out;
}

}  // namespace llmtk::data
