#pragma once
// A SentencePiece model as tokenizer.json says it, for the libraries that open models of that kind only so.

#include <optional>
#include <string>
#include <string_view>

namespace llmtk::text {

/// Merges are looked for in every place of a piece; sentencepiece's own trainer makes none longer than 16 characters.
inline constexpr size_t kMostPieceBytes = 256;
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";  ///< U+2581, what spaces are spelled with

/// `model`: the bytes of a .model file. Encoding with `add_special_tokens` puts `bos` (a piece; empty: nothing) in
/// front. Nothing for models that tokenizer.json cannot give the same ids: those that normalize, and types other than
/// BPE and unigram. Two things differ on purpose: control pieces are found in the text, as Hugging Face's tokenizers
/// do, and a unigram model without '<' takes the text "<0x41>" for the byte.
std::optional<std::string> sentencepiece_json(std::string_view model, const std::string& bos);

}  // namespace llmtk::text
