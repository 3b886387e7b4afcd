#pragma once
// Training of a BERT vocabulary: the tokens that Hugging Face's WordPieceTrainer finds, which joins pairs as BPE does.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "text/hf_tokenizer.h"
#include "text/merge_learner.h"

namespace llmtk::text {

struct WordPieceTrainingOptions {
  size_t vocab_size = 30522;   ///< special tokens and the alphabet included
  uint64_t min_frequency = 2;  ///< pairs seen less often are not joined
  bool lowercase = true;       ///< and without accents, as BERT's uncased models
  std::vector<std::string> special_tokens;  ///< behind [PAD], [UNK], [CLS], [SEP] and [MASK]
};

/// What stands before the splitting into words, and the splitting: BERT's. For counting words as the tokenizer will see
/// them.
struct WordPieceWords {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
};
WordPieceWords wordpiece_words(const WordPieceTrainingOptions& options);

/// Ids: the special tokens, the characters in order, those that continue a word ("##a") in order, then one for each
/// pair. Where the vocabulary has no room for all characters, the rarest are left out, said as a warning. `progress`
/// hears (tokens so far, vocab_size). Throws Error(usage) where it has no room at all.
std::unique_ptr<HfTokenizer> train_wordpiece(const WordCounts& words, const WordPieceTrainingOptions& options,
                                             const std::function<void(size_t, size_t)>& progress = {});

}  // namespace llmtk::text
