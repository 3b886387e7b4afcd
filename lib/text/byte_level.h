#pragma once
// GPT-2's spelling of bytes: every byte is one printable character, so that a vocabulary of byte strings is a JSON of
// text.

#include <optional>
#include <string>
#include <string_view>

namespace llmtk::text {

/// The code point that spells a byte: itself where printable in Latin-1, else 256 and on, in order.
char32_t byte_to_char(unsigned char byte);
/// The byte that a code point spells, or -1.
int char_to_byte(char32_t code);

/// "Ġhello" for " hello".
std::string spell_bytes(std::string_view bytes);
/// The bytes that a token spells; nothing where some character spells no byte (an added token in another script).
std::optional<std::string> unspell_bytes(std::string_view token);

}  // namespace llmtk::text
