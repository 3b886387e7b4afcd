#pragma once
// Texts and words as encoders read them.

#include <cstdint>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::data {

/// A text, or two, as an encoder reads them.
struct EncoderInput {
  text::Encoding encoding;
  bool truncated = false;
};
/// Puts the tokenizer's special tokens around and between the tokens of a text and, where it is not null, a second one.
/// What is longer than `most` then is cut as transformers' tokenizer(truncation=True, max_length=most) cuts it: special
/// tokens stay, the texts lose their ends, of two the longer one first.
EncoderInput encoder_input(const text::Tokenizer& tokenizer, std::vector<text::TokenId> text,
                           std::vector<text::TokenId>* pair, bool add_special_tokens, size_t most);

struct WordsInput {
  EncoderInput input;
  /// The place of each word's first token in the encoding, which stands for the word as in Hugging Face's run_ner; -1
  /// for a word without tokens, or cut away.
  std::vector<int64_t> places;
};
/// The same for words, each tokenized by itself (as is_split_into_words=True). words: the ids of each.
WordsInput encoder_input(const text::Tokenizer& tokenizer, const std::vector<std::vector<text::TokenId>>& words,
                         bool add_special_tokens, size_t most);

}  // namespace llmtk::data
