#pragma once
// Training of byte-level BPE (Sennrich et al. 2016 over bytes, as GPT-2): the merges are those that Hugging Face's
// BpeTrainer finds on the same words.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "text/hf_tokenizer.h"
#include "text/merge_learner.h"

namespace llmtk::text {

struct BpeTrainingOptions {
  size_t vocab_size = 32000;                                    ///< special tokens and the 256 bytes included
  uint64_t min_frequency = 2;                                   ///< pairs seen less often are not joined
  Pattern pattern = Pattern::gpt2;                              ///< gpt2, or gpt2_digits: each digit is a word
  std::vector<std::string> special_tokens = {"<|endoftext|>"};  ///< the first is the end of a text
};

/// Ids: the special tokens, the 256 bytes in the order of the characters that spell them, then one for each merge.
/// `progress` hears (tokens so far, vocab_size). Throws Error(usage) when vocab_size has no room for specials and
/// bytes.
std::unique_ptr<HfTokenizer> train_bpe(const WordCounts& words, const BpeTrainingOptions& options,
                                       const std::function<void(size_t, size_t)>& progress = {});

}  // namespace llmtk::text
