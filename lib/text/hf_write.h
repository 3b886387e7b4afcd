#pragma once
// Writing the files of a tokenizer that llmtk trained or put together.

#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/hf_tokenizer.h"
#include "text/split.h"

namespace llmtk::text {

/// A byte-level or character-level BPE tokenizer, to be written as Hugging Face's libraries read it.
struct TokenizerSketch {
  const Vocabulary* vocabulary = nullptr;
  std::vector<BpeModel::Merge> merges;
  bool byte_level = true;
  Pattern pattern = Pattern::gpt2;  ///< byte-level only: gpt2 or gpt2_digits
  bool add_prefix_space = false;    ///< byte-level only
  std::vector<AddedToken> added;
  std::string bos, eos, pad, unk;  ///< empty for none; tokens of the vocabulary
  std::string post_processor;      ///< the section as JSON; empty for none that adds tokens
  /// What transformers opens it with.
  std::string tokenizer_class = "PreTrainedTokenizerFast";
};

/// tokenizer.json and tokenizer_config.json; with `gpt2_files` also vocab.json and merges.txt.
std::vector<KeptFile> write_tokenizer_files(const TokenizerSketch& sketch, bool gpt2_files);

/// The section added_tokens.
std::string added_tokens_json(const std::vector<AddedToken>& added);
/// The tokens and their ids in the order of ids, one token a line.
std::string vocab_json(const Vocabulary& vocabulary, const std::string& indent);

/// `text` as a JSON string, with its quotes.
std::string json_string(std::string_view text);

}  // namespace llmtk::text
