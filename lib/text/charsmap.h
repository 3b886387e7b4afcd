#pragma once
// The normalization table inside sentencepiece models, as Hugging Face's normalizer Precompiled applies it: grapheme by
// grapheme, where sentencepiece itself takes the longest match.

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/normalizer.h"

namespace llmtk::text {

/// `charsmap`: the size of a double array in bytes, the array (units of 32 bits as of darts-clone, little-endian), then
/// what its values point to: texts with a zero byte after each. `where` and `path` name the place in errors:
/// Error(file) for what is cut short or points outside.
std::unique_ptr<NormalizerStep> make_precompiled(std::string_view charsmap, const std::string& where,
                                                 const std::string& path);

/// Why a reader that checks nothing, as sentencepiece's is, must not be given this table: a way or a value that leads out
/// of it. Empty: it may be.
std::string problem_of_charsmap(std::string_view charsmap);

/// The bytes that `text` spells in base 64; nothing where it is no such text.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace llmtk::text
