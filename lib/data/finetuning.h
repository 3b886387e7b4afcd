#pragma once
// The `data` section of a fine-tuning config, and what it becomes: batches of rows of any schema, with labels where
// something is trained on. Rows are read and tokenized once, when they are opened, and kept in memory, about 4 bytes a
// token.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/batch.h"
#include "data/encoded_rows.h"
#include "data/labels.h"
#include "data/noise.h"
#include "data/preference_rows.h"
#include "data/pretraining.h"
#include "text/tokenizer.h"

namespace llmtk::data {

/// What the model learns to give.
enum class Objective {
  causal_lm,                ///< the next token: texts, instructions, chats
  masked_lm,                ///< hidden tokens of a text (RowLoaderOptions::transform hides them)
  seq2seq,                  ///< a target text for an input text
  sequence_classification,  ///< of a text or a pair: one label, several, or numbers
  token_classification,     ///< a label for each word
  preference,               ///< which of two answers is better
  unpaired_preference,      ///< whether an answer is wanted; pairs are taken apart
};
inline bool is_preference(Objective objective) { return objective >= Objective::preference; }
/// By their names here; throws Error(usage).
Objective parse_objective(std::string_view name);
std::string to_string(Objective objective);

struct FinetuneSourceConfig {
  std::string path;
  double weight = 0;
  int64_t max_epochs = 0;
  int64_t max_samples = 0;
  std::string format = "auto";
  std::map<std::string, std::string> columns;
  std::string document = "line";

  template <class V>
  void fields(V& v) {
    v("path", path,
      "A file of rows (.jsonl, .json, .csv, .tsv), of plain text (.txt), a folder of them, a pattern "
      "('chats/*.jsonl'), "
      "or .jsonl rows of {input_ids, labels}",
      config::required, config::not_empty);
    mixture_fields(v, *this);
    v("max_samples", max_samples, "Its first so many rows, the others are left unread; 0: all", config::at_least(0));
    v("format", format, "What the rows are; auto: what the keys of the first one say",
      config::one_of({"auto", "text", "alpaca", "sharegpt", "messages", "prompt_completion", "input_output",
                      "classification", "tagging", "preference", "unpaired_preference"}));
    v("columns", columns,
      "The rows' own names of the format's keys, as {prompt: question, completion: answer}; see "
      "docs/finetuning-data.md");
    v("document", document, "What one row of a plain text file is", config::one_of({"file", "line", "blank_line"}));
  }
};

struct FinetuneDataConfig {
  std::vector<FinetuneSourceConfig> train, validation;
  double validation_fraction = 0;
  int64_t max_length = 0;
  int64_t max_target_length = 0;
  std::string truncation = "truncate";
  std::string truncation_side = "right";
  bool packing = false;
  bool group_by_length = false;
  std::string train_on = "answers";
  std::string chat_template = "auto";
  nlohmann::ordered_json chat_template_kwargs = nlohmann::ordered_json::object();
  std::string source_prefix;
  std::string problem_type = "auto";
  std::optional<MaskedLmConfig> masked_lm;
  bool shuffle = true;
  std::string on_bad_line = "stop";
  int64_t preprocessing_num_workers = 0;
  int64_t dataloader_prefetch_factor = 2;

  template <class V>
  void fields(V& v) {
    v("train", train, "What to train on", config::required, config::not_empty);
    v("validation", validation, "What to evaluate on: every row once, in order");
    v("validation_fraction", validation_fraction,
      "Rows held out of each source of data.train instead, from all parts of it; never trained on", config::at_least(0),
      config::below(1));
    v("max_length", max_length, "Tokens of one row at most; 0: 1024, or what the model can see where that is less",
      config::at_least(0));
    v("max_target_length", max_target_length, "seq2seq: tokens of a target at most; 0: as many as max_length",
      config::at_least(0));
    v("truncation", truncation,
      "Rows that are longer: truncate cuts them, drop leaves them out (both are counted and said), error stops",
      config::one_of({"truncate", "drop", "error"}));
    v("truncation_side", truncation_side, "truncate: the end that is cut off a row", config::one_of({"right", "left"}));
    v("packing", packing,
      "causal_lm: several rows share one of max_length tokens. They do not see each other, and positions restart");
    v("group_by_length", group_by_length, "Rows of about the same length come together: less padding");
    v("train_on", train_on,
      "causal_lm: the answers, all, or generation: what the chat template marks by {% generation %}",
      config::one_of({"answers", "all", "generation"}));
    v("chat_template", chat_template,
      "auto: the model's own, or Alpaca's form where it has none; alpaca: that form; or a Jinja file");
    v("chat_template_kwargs", chat_template_kwargs, "More variables of the chat template, as {enable_thinking: false}");
    v("source_prefix", source_prefix, "seq2seq: put before every input, as 'summarize: '");
    v("problem_type", problem_type,
      "sequence_classification: what the labels are; auto: what they look like, or what the model was trained for",
      config::one_of({"auto", "single_label_classification", "multi_label_classification", "regression"}));
    v("masked_lm", masked_lm, "masked_lm: what is hidden of a row");
    v("shuffle", shuffle, "Draw the rows of each epoch in another order");
    v("on_bad_line", on_bad_line, "A row that is not UTF-8, not JSON, or not as its format wants it",
      config::one_of({"stop", "skip", "replace"}));
    worker_fields(v, *this);
  }
  void validate(config::Problems& problems) const;
};

/// What the rows must fit.
struct FinetuneContext {
  LoaderContext loader;
  Objective objective = Objective::causal_lm;
  const text::Tokenizer* tokenizer = nullptr;  ///< needed unless every row is tokenized already; not after the call
  std::string tokenizer_path;                  ///< whose chat template is used
  int64_t max_positions = 0;                   ///< tokens that the model can see; 0: any number
  bool token_types = false;                    ///< the model tells the two texts of a pair apart (BERT's type ids)
  std::vector<std::string> label_names;        ///< of a model that classifies already; empty: the data says
  std::string problem_type;                    ///< config.json's; empty: none
  bool margins = false;                        ///< preference: a row's value is its margin
  bool annotated = false;                      ///< preference: FinetuningData::annotated are wanted
  /// RowLoaderOptions::transform, for both sets.
  std::function<void(Example& example, uint64_t random)> transform;
};

/// What opening a set of rows found; what tokens are trained on counts labels.
struct FinetuneStatistics {
  uint64_t rows = 0;            ///< that are used
  uint64_t tokens = 0;          ///< of inputs
  uint64_t trained_tokens = 0;  ///< labels; of masked_lm not known before tokens are hidden
  uint64_t longest = 0;         ///< tokens of a row
  uint64_t skipped = 0;         ///< bad rows left out (on_bad_line)
  uint64_t dropped = 0;         ///< longer than max_length, left out
  uint64_t cut = 0;             ///< longer than max_length, cut
  uint64_t cut_tokens = 0;
  uint64_t answers_cut = 0;    ///< rows that lost tokens to train on: an answer that ends so has no end to learn
  uint64_t untrained = 0;      ///< rows without anything to train on, left out
  uint64_t doubled_bos = 0;    ///< rows that begin with two of them
  uint64_t untrained_eos = 0;  ///< causal_lm: rows in which no end of text is trained
  uint64_t words_cut = 0;      ///< token_classification: words without a token, or cut away

  void count(const Example& row);
  /// What befell it on the way.
  void count(const EncodedRow& notes);
  FinetuneStatistics& operator+=(const FinetuneStatistics& other);
  nlohmann::ordered_json json() const;
  bool operator==(const FinetuneStatistics&) const = default;
};

struct FinetuningData {
  std::unique_ptr<BatchSource> train;
  std::unique_ptr<BatchSource> validation;  ///< null when none was asked for
  FinetuneStatistics train_statistics, validation_statistics;
  /// What the loaders draw from, packed where that is asked for; for showing.
  std::shared_ptr<const RowSource> train_rows, validation_rows;
  /// The sources of both sets in order, where the caller writes down what its reference says of each row before the
  /// first batch is drawn.
  std::vector<std::shared_ptr<AnnotatedRows>> annotated;
  int64_t max_length = 0;                ///< as resolved
  std::vector<std::string> label_names;  ///< id2label, in order; of classification
  std::string problem_type;              ///< of sequence_classification, as resolved
  /// What was opened: per source its path, role, format, rows, tokens and checksum; kept with the run.
  nlohmann::ordered_json description;
};

/// Reads, checks and tokenizes all rows. Warns of everything that is cut, dropped or odd. Throws Error(data) naming
/// file and line for rows that cannot be used, and when nothing would be trained; Error(usage) for settings that do not
/// belong to the objective.
FinetuningData open_finetuning_data(const FinetuneDataConfig& config, const FinetuneContext& context);

}  // namespace llmtk::data
