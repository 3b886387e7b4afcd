#pragma once
// Where the Unicode data that Hugging Face's tokenizers are built with is older or newer than utf8proc's (15.0), which
// differs from part to part: ids are the same only where the classes are. Found by asking tokenizers 0.23 for every
// code point.

namespace llmtk::text {

/// \p{P} of Unicode 8, in the Punctuation and BERT's pre-tokenizer.
bool is_old_punctuation(char32_t code);
/// \p{M} of Unicode 9, in StripAccents.
bool is_old_combining_mark(char32_t code);
/// \p{Mn} of Unicode 8, in BERT's normalizer.
bool is_old_nonspacing_mark(char32_t code);
/// \p{Cc}, \p{Cf} and \p{Co} of Unicode 8, in BERT's normalizer.
bool is_old_control_or_format(char32_t code);
/// Whether the normalization forms of Unicode 9 leave a character alone that those of Unicode 15 decompose.
bool has_new_decomposition(char32_t code);
/// The lower case of Unicode 17 where it is one character.
char32_t lowercase_of(char32_t code);

}  // namespace llmtk::text
