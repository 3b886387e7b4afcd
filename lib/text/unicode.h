#pragma once
// UTF-8 and the character classes that the pre-tokenizers' patterns ask for.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace llmtk::text {

/// Bits of a character's class. Letters and numbers as Unicode 16 has them (what Hugging Face's tokenizers 0.23 matches
/// with).
enum CharClass : uint8_t {
  kLetter = 1,        ///< \p{L}
  kNumber = 2,        ///< \p{N}
  kSpace = 4,         ///< \s, the property White_Space
  kNumeric = 8,       ///< what the Digits pre-tokenizer splits off: \p{N} of Unicode 17
  kWord = 16,         ///< \w as the flag single_word means it: letters, marks, digits, connectors, joiners
  kPunctuation = 32,  ///< ASCII's signs and \p{P}, what the Punctuation and BERT's pre-tokenizer split off
};

/// Classes of all code points in two stages, made once from utf8proc (about 2 ms) when first asked for.
class CharTable {
 public:
  static const CharTable& get();

  uint8_t of(char32_t c) const { return c < kEnd ? classes_[(size_t{blocks_[c >> 8]} << 8) | (c & 0xFF)] : 0; }
  /// The class of an ASCII byte, kMultibyte for the others.
  uint8_t ascii(unsigned char c) const { return ascii_[c]; }
  static constexpr uint8_t kMultibyte = 0x80;

 private:
  CharTable();
  static constexpr char32_t kEnd = 0x110000;
  uint8_t ascii_[256];
  uint16_t blocks_[kEnd >> 8];
  std::string classes_;
};

/// One character at the front of [p, end), which is not empty. A byte that starts no valid sequence counts as a
/// character of size 1 with code point kInvalid, which belongs to no class.
struct Utf8Char {
  char32_t code;
  uint32_t size;
};
constexpr char32_t kInvalid = 0xFFFFFFFF;
Utf8Char decode_utf8(const char* p, const char* end);

/// The last character of `text`, which is not empty.
Utf8Char last_character(std::string_view text);

void append_utf8(char32_t code, std::string& out);

/// Unicode's normalization forms: canonical or compatible, decomposed or composed.
enum class UnicodeForm { nfc, nfd, nfkc, nfkd };
/// Writes `text` in that form to `out`; false where it is in that form already (any ASCII text is). Bytes that are no
/// UTF-8 stay.
bool to_unicode_form(UnicodeForm form, std::string_view text, std::string& out);

/// Appends the lower case of a character, which does not depend on its neighbours.
void append_lowercase(char32_t code, std::string& out);

/// With every ill-formed sequence (its longest part that could have begun a character) as one U+FFFD.
std::string replace_invalid_utf8(std::string_view text);
/// How many bytes at the end are the beginning of a character that more bytes could complete: 0 to 3.
size_t incomplete_utf8_suffix(std::string_view text);

}  // namespace llmtk::text
