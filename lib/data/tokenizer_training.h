#pragma once
// A tokenizer learnt from text files: what `tokenize train` and the `tokenizer.train` section of a config ask for.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/finetuning.h"
#include "data/pretraining.h"
#include "data/reader.h"
#include "text/tokenizer.h"

namespace llmtk::data {

struct TokenizerTrainingConfig {
  std::string type = "bpe";
  int64_t vocab_size = 32000;
  std::optional<int64_t> min_frequency;
  std::optional<bool> split_digits;
  std::optional<std::vector<std::string>> special_tokens;
  std::optional<bool> byte_fallback;
  std::optional<double> character_coverage;
  std::optional<int64_t> input_sentence_size;
  std::optional<bool> lowercase;
  int64_t extra_ids = 0;

  template <class V>
  void fields(V& v) {
    v("type", type, "bpe (byte-level, as GPT-2), wordpiece (as BERT), sentencepiece-bpe or sentencepiece-unigram",
      config::one_of({"bpe", "wordpiece", "sentencepiece-bpe", "sentencepiece-unigram"}));
    v("vocab_size", vocab_size, "Tokens", config::at_least(1));
    v("min_frequency", min_frequency, "bpe, wordpiece: pairs seen less often are not joined; default: 2",
      config::at_least(1));
    v("split_digits", split_digits, "bpe: every digit is a token of its own (sentencepiece: always)");
    v("special_tokens", special_tokens,
      "Tokens that no text becomes; bpe: the first ends a text, default: <|endoftext|> (sentencepiece has <s> and </s> "
      "of its own, wordpiece [CLS], [SEP], [MASK], [PAD] and [UNK])");
    v("byte_fallback", byte_fallback, "sentencepiece: an unknown character becomes its bytes; default: true");
    v("character_coverage", character_coverage,
      "sentencepiece: share of the characters with a token of their own; default: 0.9995", config::above(0),
      config::at_most(1));
    v("input_sentence_size", input_sentence_size,
      "sentencepiece: learn from a random sample of so many lines, which bounds the memory; default: from all",
      config::above(100));
    v("lowercase", lowercase, "wordpiece: texts lose their capitals and accents, as BERT's uncased models; default: true");
    v("extra_ids", extra_ids, "So many sentinels <extra_id_0>, <extra_id_1>, ..., behind which T5's training hides text",
      config::at_least(0), config::at_most(10000));
  }
  /// Names of the settings that are given and belong to another type.
  std::vector<std::string> idle() const;
  /// special_tokens, or those of the type, with the sentinels.
  std::vector<std::string> all_special_tokens() const;
  void validate(config::Problems& problems) const;
};

struct TrainingProgress {
  enum class Phase { reading, learning } phase;
  uint64_t done, total;  ///< bytes of the input; tokens (sentencepiece's library learns without a word)
};
using OnTrainingProgress = std::function<void(const TrainingProgress&)>;

/// A line on stderr every few seconds, with the share done, the speed and the time left.
OnTrainingProgress training_lines();

/// Reads the text behind `inputs` (see find_text_files) on `threads` threads (0: one for each core) and trains. The
/// result does not depend on their number. `on_progress` is called on the calling thread. Throws Error(data) for bad
/// text or too little of it.
std::unique_ptr<text::Tokenizer> train_tokenizer(const std::vector<std::string>& inputs, const ReadOptions& read,
                                                 const TokenizerTrainingConfig& config, int threads,
                                                 const OnTrainingProgress& on_progress = {});

/// The folder of a tokenizer learnt from the text of data.train: in the cache under a name made of all that it depends
/// on, so that it is learnt once. Throws what train_tokenizer throws, and Error(usage) for sources that are no text.
std::filesystem::path learn_tokenizer(const DataConfig& data, const TokenizerTrainingConfig& config);

/// A tokenizer learnt from what the rows of data.train say, labels and tags aside. It is learnt anew for each run, as its
/// rows are read anew. Throws Error(data) for rows that cannot be used or say too little, and Error(usage) for rows that
/// are tokenized already.
std::unique_ptr<text::Tokenizer> learn_tokenizer(const FinetuneDataConfig& data, Objective objective,
                                                 const TokenizerTrainingConfig& config);

}  // namespace llmtk::data
