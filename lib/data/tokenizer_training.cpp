#include "data/tokenizer_training.h"

#include <algorithm>
#include <span>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/processors.h"
#include "data/checksums.h"
#include "data/files.h"
#include "data/ordered_map.h"
#include "data/progress_lines.h"
#include "data/row_reading.h"
#include "data/rows.h"
#include "data/shard.h"
#include "text/sentencepiece.h"
#include "text/train_bpe.h"
#include "text/train_wordpiece.h"

namespace llmtk::data {
namespace {

/// Names the first few bad lines and counts them all.
class Complaints {
 public:
  void add(const ParsedBlock& block) {
    bad_ += block.skipped + block.replaced;
    for (const auto& complaint : block.complaints)
      if (shown_++ < kShown) log::warn(complaint);
  }
  void finish() const {
    if (bad_ > 0) log::warn(std::to_string(bad_) + " bad lines were left out or mended");
  }

 private:
  static constexpr int kShown = 5;
  uint64_t bad_ = 0;
  int shown_ = 0;
};

/// Tells how much of the files has been read.
class Reading {
 public:
  Reading(const BlockReader& reader, const OnTrainingProgress& on_progress) : on_progress_(on_progress) {
    for (const auto& file : reader.files()) progress_.total += file.bytes;
  }
  void add(uint64_t bytes) {
    progress_.done += bytes;
    if (on_progress_) on_progress_(progress_);
  }

 private:
  const OnTrainingProgress& on_progress_;
  TrainingProgress progress_{TrainingProgress::Phase::reading, 0, 0};
};

/// How often each word stands in the text, on `threads` threads.
text::WordCounts count_words(BlockReader& reader, const ReadOptions& read, const text::Normalizer& normalizer,
                             const text::PreTokenizer& words, int threads, const OnTrainingProgress& on_progress) {
  struct Counted {
    text::WordCounts counts;
    ParsedBlock block;  // its documents are gone
    uint64_t bytes;
  };
  text::WordCounts counts;
  Complaints complaints;
  Reading reading(reader, on_progress);
  uint64_t documents = 0;
  ordered_map<Block, Counted>(
      threads, [&](Block& block) { return reader.next(block); },
      [&](Block& block) {
        Counted out{.counts = {},
                    .block = parse_block(block, reader.files()[block.begin.file], read),
                    .bytes = block.bytes.size()};
        std::string buffer;
        for (const auto& document : out.block.documents) out.counts.add(normalizer.apply(document.text, buffer), words);
        return out;
      },
      [&](Counted& part) {
        counts.add(part.counts);
        complaints.add(part.block);
        documents += part.block.documents.size();
        reading.add(part.bytes);
      });
  complaints.finish();
  log::info(std::to_string(documents) + " documents, " + std::to_string(counts.words().size()) + " different words");
  return counts;
}

/// How often each word stands in the text.
using CountWords = std::function<text::WordCounts(const text::Normalizer&, const text::PreTokenizer&)>;
/// The next line of the text; false behind the last.
using NextLine = std::function<bool(std::string& line)>;

std::unique_ptr<text::Tokenizer> train_merges(const CountWords& count_words, const TokenizerTrainingConfig& config,
                                              const OnTrainingProgress& on_progress) {
  const auto learning = [&](size_t done, size_t total) {
    if (on_progress) on_progress({TrainingProgress::Phase::learning, done, total});
  };
  const auto vocab_size = static_cast<size_t>(config.vocab_size);
  const auto min_frequency = static_cast<uint64_t>(config.min_frequency.value_or(2));
  if (config.type == "wordpiece") {
    const text::WordPieceTrainingOptions options{.vocab_size = vocab_size,
                                                 .min_frequency = min_frequency,
                                                 .lowercase = config.lowercase.value_or(true),
                                                 .special_tokens = config.all_special_tokens()};
    const auto [normalizer, words] = text::wordpiece_words(options);
    return text::train_wordpiece(count_words(normalizer, words), options, learning);
  }
  const text::Pattern pattern = config.split_digits.value_or(false) ? text::Pattern::gpt2_digits : text::Pattern::gpt2;
  return text::train_bpe(count_words(text::Normalizer(), text::PreTokenizer({}, pattern)),
                         {.vocab_size = vocab_size,
                          .min_frequency = min_frequency,
                          .pattern = pattern,
                          .special_tokens = config.all_special_tokens()},
                         learning);
}

/// The lines of files, one after another.
class FileLines {
 public:
  FileLines(BlockReader& reader, const ReadOptions& read, const OnTrainingProgress& on_progress)
      : reader_(reader), read_(read), reading_(reader, on_progress) {}

  bool next(std::string& line) {
    while (lines_.empty()) {
      Block block;
      if (!reader_.next(block)) {
        log::info(std::to_string(count_) + " lines; sentencepiece learns from them");
        return false;
      }
      const ParsedBlock parsed = parse_block(block, reader_.files()[block.begin.file], read_);
      complaints_.add(parsed);
      reading_.add(block.bytes.size());
      for (const auto& document : parsed.documents) add_lines(document.text, lines_);
      count_ += lines_.size();
      std::ranges::reverse(lines_);
    }
    line = std::move(lines_.back());
    lines_.pop_back();
    return true;
  }
  void finish() const { complaints_.finish(); }

  /// Those that are not empty.
  static void add_lines(const std::string& text, std::vector<std::string>& lines) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      if (end > at) lines.push_back(text.substr(at, end - at));
      at = end + 1;
    }
  }

 private:
  BlockReader& reader_;
  const ReadOptions& read_;
  Complaints complaints_;
  Reading reading_;
  uint64_t count_ = 0;
  std::vector<std::string> lines_;  // of the block at hand, in reverse
};

std::unique_ptr<text::Tokenizer> train_pieces(const NextLine& next, const TokenizerTrainingConfig& config,
                                              int threads) {
  return text::train_sentencepiece(
      next, {.model_type = config.type == "sentencepiece-bpe" ? "bpe" : "unigram",
             .vocab_size = static_cast<size_t>(config.vocab_size),
             .byte_fallback = config.byte_fallback.value_or(true),
             .character_coverage = config.character_coverage.value_or(0.9995),
             .input_sentence_size = static_cast<uint64_t>(config.input_sentence_size.value_or(0)),
             .special_tokens = config.all_special_tokens(),
             .threads = threads});
}

bool learns_merges(const TokenizerTrainingConfig& config) { return config.type == "bpe" || config.type == "wordpiece"; }

}  // namespace

std::vector<std::string> TokenizerTrainingConfig::idle() const {
  std::vector<std::string> names;
  const bool bpe = type == "bpe", wordpiece = type == "wordpiece", pieces = !bpe && !wordpiece;
  if (pieces && min_frequency) names.push_back("min_frequency");
  if (!bpe && split_digits) names.push_back("split_digits");
  if (!pieces && byte_fallback) names.push_back("byte_fallback");
  if (!pieces && character_coverage) names.push_back("character_coverage");
  if (!pieces && input_sentence_size) names.push_back("input_sentence_size");
  if (!wordpiece && lowercase) names.push_back("lowercase");
  return names;
}

std::vector<std::string> TokenizerTrainingConfig::all_special_tokens() const {
  std::vector<std::string> own;
  if (type == "bpe") own = {"<|endoftext|>"};
  std::vector<std::string> tokens = special_tokens.value_or(own);
  for (int64_t i = 0; i < extra_ids; ++i) tokens.push_back("<extra_id_" + std::to_string(i) + ">");
  return tokens;
}

void TokenizerTrainingConfig::validate(config::Problems& problems) const {
  for (const auto& name : idle()) problems.add(name, {.what = "has no effect on a tokenizer of type " + type});
}

std::unique_ptr<text::Tokenizer> train_tokenizer(const std::vector<std::string>& inputs, const ReadOptions& read,
                                                 const TokenizerTrainingConfig& config, int threads,
                                                 const OnTrainingProgress& on_progress) {
  BlockReader reader(find_text_files(inputs), read);
  if (threads == 0) threads = usable_processors();
  if (learns_merges(config))
    return train_merges(
        [&](const text::Normalizer& normalizer, const text::PreTokenizer& words) {
          return count_words(reader, read, normalizer, words, threads, on_progress);
        },
        config, on_progress);
  FileLines lines(reader, read, on_progress);
  auto tokenizer = train_pieces([&](std::string& line) { return lines.next(line); }, config, threads);
  lines.finish();
  return tokenizer;
}

OnTrainingProgress training_lines() {
  using Phase = TrainingProgress::Phase;
  return [phase = Phase::reading, lines = ProgressLines("read", "MB")](const TrainingProgress& progress) mutable {
    if (progress.phase != phase) lines = ProgressLines("learnt", "k tokens");
    phase = progress.phase;
    const double scale = phase == Phase::reading ? 1e-6 : 1e-3;
    lines.update(static_cast<double>(progress.done) * scale, static_cast<double>(progress.total) * scale);
  };
}

std::filesystem::path learn_tokenizer(const DataConfig& data, const TokenizerTrainingConfig& config) {
  Checksum key;
  const auto add = [&](const std::string& text) { key.update(std::as_bytes(std::span(text.data(), text.size() + 1))); };
  std::vector<std::string> inputs;
  for (const auto& source : data.train) {
    if (TokenShards::is_shards(source.path) || TokenizedRows::is_tokenized(source.path))
      throw Error(Exit::usage, {.what = "a tokenizer is learnt from text, and this is tokenized already",
                                .where = source.path,
                                .hint = "name the tokenizer it was made with in tokenizer.name_or_path"});
    if (source.text_field != data.train.front().text_field || source.document != data.train.front().document)
      throw Error(Exit::usage, {.what = "sources that are read in different ways",
                                .where = source.path,
                                .hint = "learn the tokenizer before, with llmtk tokenize train"});
    for (const auto& file : find_text_files({source.path})) add(remembered_checksum(file.path, data.cache_folder()));
    inputs.push_back(source.path);
  }
  ReadOptions read;
  read.text_field = data.train.front().text_field;
  read.document = parse_document_unit(data.train.front().document);
  read.on_bad_line = parse_bad_line(data.on_bad_line);
  for (const auto& text : {read.text_field, data.train.front().document, data.on_bad_line, config::dump(config)})
    add(text);
  const fs::path folder = data.cache_folder() / ("tokenizer-" + key.hex());
  if (fs::exists(folder / "tokenizer_config.json")) return folder;  // it is written last
  log::info("learning a tokenizer of " + std::to_string(config.vocab_size) + " tokens into " + folder.string());
  const auto tokenizer =
      train_tokenizer(inputs, read, config, static_cast<int>(data.preprocessing_num_workers), training_lines());
  tokenizer->save(folder);
  return folder;
}

std::unique_ptr<text::Tokenizer> learn_tokenizer(const FinetuneDataConfig& data, Objective objective,
                                                 const TokenizerTrainingConfig& config) {
  const std::vector<std::string> texts = texts_of_rows(data, objective);
  log::info("learning a tokenizer of " + std::to_string(config.vocab_size) + " tokens from " +
            std::to_string(texts.size()) + " texts");
  if (learns_merges(config))
    return train_merges(
        [&](const text::Normalizer& normalizer, const text::PreTokenizer& words) {
          text::WordCounts counts;
          std::string buffer;
          for (const auto& text : texts) counts.add(normalizer.apply(text, buffer), words);
          return counts;
        },
        config, {});
  std::vector<std::string> lines;
  for (const auto& text : texts) FileLines::add_lines(text, lines);
  size_t at = 0;
  return train_pieces(
      [&](std::string& line) {
        if (at == lines.size()) return false;
        line = lines[at++];
        return true;
      },
      config, row_threads(data));
}

}  // namespace llmtk::data
