#pragma once
// SentencePiece models (Kudo and Richardson 2018): BPE and unigram, through the sentencepiece library.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace llmtk::text {

/// Opens a .model file. Throws Error(file).
std::unique_ptr<Tokenizer> read_sentencepiece(const std::filesystem::path& file);

/// The tokenizer of a folder that has a tokenizer.model and the tokenizer.json that says just the same, as save()
/// writes them; otherwise null.
std::unique_ptr<Tokenizer> read_saved_sentencepiece(const std::filesystem::path& folder);

struct SentencePieceOptions {
  std::string model_type = "bpe";  ///< bpe or unigram
  size_t vocab_size = 32000;
  bool byte_fallback = true;                ///< an unknown character becomes its bytes' tokens
  double character_coverage = 0.9995;       ///< share of characters with a token of their own
  uint64_t input_sentence_size = 0;         ///< learn from a random sample of so many sentences; 0: from all
  std::vector<std::string> special_tokens;  ///< beside <unk>, <s> and </s>
  int threads = 1;
};

/// Trains on the sentences that `next` fills until it returns false; all of them are in memory, or the sample. What
/// `next` throws comes out here. Throws Error(data) with the library's words when the text does not do (too little of
/// it for vocab_size, say).
std::unique_ptr<Tokenizer> train_sentencepiece(const std::function<bool(std::string&)>& next,
                                               const SentencePieceOptions& options);

}  // namespace llmtk::text
