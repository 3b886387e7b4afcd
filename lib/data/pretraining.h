#pragma once
// The `data` section of a pretraining config, and what it becomes: batches of rows cut from streams of ids.

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/config.h"
#include "data/batch.h"
#include "data/noise.h"
#include "text/tokenizer.h"

namespace llmtk::data {

// Fields that the data sections of all training configs have.

/// Of a source: weight and max_epochs.
template <class V, class Source>
void mixture_fields(V& v, Source& source) {
  v("weight", source.weight, "Share of the rows, relative to the other sources'; 0 for all: by size",
    config::at_least(0));
  v("max_epochs", source.max_epochs, "Passes over this source, after which the others share its weight; 0: no limit",
    config::at_least(0));
}
/// preprocessing_num_workers and dataloader_prefetch_factor.
template <class V, class Section>
void worker_fields(V& v, Section& section) {
  v("preprocessing_num_workers", section.preprocessing_num_workers, "Threads that tokenize text; 0: one for each core",
    config::at_least(0));
  v("dataloader_prefetch_factor", section.dataloader_prefetch_factor,
    "Batches made ahead on a thread of their own; 0: none", config::at_least(0));
}

/// One member of the mixture.
struct SourceConfig {
  std::string path;
  double weight = 0;
  int64_t max_epochs = 0;
  std::string text_field = "text";
  std::string document = "file";
  std::string split;

  template <class V>
  void fields(V& v) {
    v("path", path,
      "A text file (.txt, .jsonl, .json, .csv, .tsv), a folder of them, a pattern ('books/**/*.txt'), a folder of "
      "token shards, "
      "files with llm.c's header (.bin), or .jsonl rows of {input_ids, labels}",
      config::required, config::not_empty);
    mixture_fields(v, *this);
    v("text_field", text_field, "The key that holds the text in rows of JSON, or the column of a .csv or .tsv file",
      config::not_empty);
    v("document", document, "What one document of a plain text file is",
      config::one_of({"file", "line", "blank_line"}));
    v("split", split,
      "Which split of a folder of shards; empty: train, and for data.validation its validation where it has one");
  }
};

struct DataConfig {
  std::vector<SourceConfig> train, validation;
  double validation_fraction = 0;
  int64_t max_length = 1024;
  bool shuffle = true;
  bool prepend_bos = true;
  bool append_eos = true;
  bool document_mask = false;
  std::optional<MaskedLmConfig> masked_lm;
  std::optional<SpanCorruptionConfig> span_corruption;
  std::string on_bad_line = "stop";
  std::string cache_dir;
  int64_t preprocessing_num_workers = 0;
  int64_t dataloader_prefetch_factor = 2;

  template <class V>
  void fields(V& v) {
    v("train", train, "What to train on", config::required, config::not_empty);
    v("validation", validation, "What to evaluate on: every token once, in order");
    v("validation_fraction", validation_fraction,
      "Held out of each source of data.train instead, from all parts of it; never trained on", config::at_least(0),
      config::below(1));
    v("max_length", max_length, "Tokens of one row", config::at_least(1));
    v("shuffle", shuffle, "Draw the rows of each epoch in another order");
    v("prepend_bos", prepend_bos,
      "Decoders: put before every document what the tokenizer itself puts before a text (bos); most put nothing");
    v("append_eos", append_eos,
      "Put the tokenizer's end-of-text token after every document (where it has none, its separator)");
    v("document_mask", document_mask,
      "Documents packed into one row do not see each other, positions restart, and no document's end predicts the next "
      "one's beginning; false: as GPT-2 and GPT-3 were trained, with the end-of-text token alone between them");
    v("masked_lm", masked_lm, "Encoders: what is hidden of a row");
    v("span_corruption", span_corruption, "Encoder-decoders: what is hidden of a row");
    v("on_bad_line", on_bad_line, "A line that is not UTF-8, or not the JSON or the record of a table it should be",
      config::one_of({"stop", "skip", "replace"}));
    v("cache_dir", cache_dir, "Where raw text is kept as token shards; empty: ~/.cache/llmtk/data");
    worker_fields(v, *this);
  }
  void validate(config::Problems& problems) const;
  /// cache_dir, or the default one.
  std::filesystem::path cache_folder() const;
};

/// What a model learns from text alone.
enum class PretrainingObjective {
  causal_lm,        ///< a decoder: the next token
  masked_lm,        ///< an encoder: TokenMasker
  span_corruption,  ///< an encoder-decoder: SpanCorruptor
};

/// What the data must fit.
struct LoaderContext {
  PretrainingObjective objective = PretrainingObjective::causal_lm;
  int64_t batch_size = 1;       ///< rows of one rank: trainer.per_device_train_batch_size
  int64_t eval_batch_size = 1;  ///< trainer.per_device_eval_batch_size
  int64_t epochs = 0;           ///< trainer.num_train_epochs; 0: without end (trainer.max_steps decides)
  uint64_t seed = 0;
  int rank = 0, world_size = 1;
  int64_t vocab_size = 0;  ///< the model's
};

struct PretrainingData {
  std::unique_ptr<BatchSource> train;
  std::unique_ptr<BatchSource> validation;  ///< null when none was asked for
  uint64_t train_tokens = 0, validation_tokens = 0;
  /// What was opened: per source its path, rows, tokens and checksum; kept with the run.
  nlohmann::ordered_json description;
};

/// Opens the sources; raw text is tokenized into the cache first (other ranks wait), or found there. `tokenizer` may be
/// null when every source is tokenized already; it is not needed after the call. Throws Error(data) or Error(file), see
/// docs/data.md for what is refused.
PretrainingData open_pretraining_data(const DataConfig& config, const text::Tokenizer* tokenizer,
                                      const std::string& tokenizer_path, const LoaderContext& context);

/// Where data.cache_dir points to when it is empty: $XDG_CACHE_HOME/llmtk/data, else ~/.cache/llmtk/data.
std::filesystem::path default_cache_folder();

}  // namespace llmtk::data
