#pragma once
// A model with its tokenizer, as what gives log-probabilities to texts.

#include <span>
#include <string>
#include <vector>

#include "eval/options.h"
#include "generate/score.h"
#include "open_model.h"

namespace llmtk {

class Scorer {
 public:
  /// truncate: a prompt that is too long for the model loses its beginning, what the tokenizer puts before a text
  /// stays; otherwise it is an error.
  Scorer(const EvalOptions& options, bool truncate);

  const text::Tokenizer& tokenizer() const { return *open_.tokenizer; }
  const std::shared_ptr<nn::Model>& model() const { return open_.model; }
  const std::filesystem::path& folder() const { return open_.folder; }

  /// The tokens of `continuation`, to be scored after those of `prompt`; where nothing stands before them, after bos.
  /// An encoder-decoder reads the prompt in its encoder and is scored on the continuation and its end. Throws
  /// Error(data) naming `where`: not UTF-8, nothing to score, too long.
  generate::Scored continuation(const std::string& prompt, const std::string& continuation, const std::string& where);
  /// The tokens of a text, all but the first to be scored. Throws Error(usage) for an encoder-decoder, too.
  generate::Scored whole(const std::string& text, const std::string& where);
  /// All tokens of a text, however long. Throws Error(data).
  std::vector<text::TokenId> tokens(const std::string& text, const std::string& where) const;

  std::vector<std::vector<float>> score(std::span<const generate::Scored> rows) const;

  /// Warns how many prompts lost their beginning.
  void say_truncated() const;

 private:
  void check_ids(const std::vector<text::TokenId>& ids, const std::string& where) const;
  generate::Scored fitted(generate::Scored row, const std::string& where);

  OpenModel open_;
  std::shared_ptr<nn::CausalModel> causal_;  // the model as what it is: one of the two
  std::shared_ptr<nn::Seq2SeqModel> seq2seq_;
  text::TokenId bos_, decoder_start_ = -1;  // as generate() takes them: generation_config.json's first; -1: none
  int64_t batch_size_;
  bool add_special_tokens_, truncate_;
  int64_t truncated_ = 0;
};

}  // namespace llmtk
