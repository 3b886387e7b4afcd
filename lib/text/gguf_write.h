#pragma once
// A tokenizer as the vocabulary of a GGUF file, so that llama.cpp gives the same ids.

#include <filesystem>
#include <vector>

#include "io/gguf.h"
#include "text/tokenizer.h"

namespace llmtk::text {

/// The keys tokenizer.* for a tokenizer, its chat templates included. What GGUF cannot hold and what a text does not
/// always need (flags of added tokens, a fourth end) is left out with a warning. vocab_size: rows of the model's token table; ids
/// that the tokenizer lacks are filled up. end_ids: what ends a text, the first one of a sequence, then of a turn and
/// of a message; empty: the tokenizer's own. Throws Error(file) naming `where` for a tokenizer that GGUF cannot say:
/// one that is not BPE, or whose pre-tokenizer or merges have no equal there.
io::GgufMetadata gguf_vocabulary(const Tokenizer& tokenizer, int64_t vocab_size, const std::vector<TokenId>& end_ids,
                                 const std::string& where);

}  // namespace llmtk::text
