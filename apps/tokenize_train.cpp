// llmtk tokenize train: a tokenizer learnt from text files.

#include <algorithm>
#include <chrono>
#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "data/tokenizer_training.h"
#include "tokenize.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;

struct TrainOptions {
  std::vector<std::string> inputs;
  std::string output;
  ReadFlags read;
  data::TokenizerTrainingConfig training;
  int threads = 0;
  bool overwrite = false;
};

int train(const TrainOptions& options, bool json) {
  const fs::path folder = options.output;
  for (const char* name : {"tokenizer.json", "tokenizer.model"})
    if (fs::exists(folder / name) && !options.overwrite)
      throw Error(Exit::usage, {.what = "there is a tokenizer already",
                                .where = (folder / name).string(),
                                .hint = "--overwrite replaces it"});
  for (std::string name : options.training.idle()) {
    std::ranges::replace(name, '_', '-');
    throw Error(Exit::usage, {.what = "--" + name + " has no effect with --type " + options.training.type});
  }
  const auto begin = std::chrono::steady_clock::now();
  const auto tokenizer = data::train_tokenizer(options.inputs, options.read.options(), options.training,
                                               options.threads, data::training_lines());
  tokenizer->save(folder);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  log::info("wrote a tokenizer of " + std::to_string(tokenizer->vocab_size()) + " tokens to " + folder.string());
  if (json)
    std::cout << nlohmann::ordered_json{{"folder", folder.string()},
                                        {"type", options.training.type},
                                        {"vocab_size", tokenizer->vocab_size()},
                                        {"seconds", seconds}}
              << '\n';
  return 0;
}

}  // namespace

void add_train_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* sub = app.add_subcommand("train", "A tokenizer learnt from text");
  sub->add_option("inputs", options->inputs, kInputsHelp)->required();
  sub->add_option("-o,--output", options->output, "The folder to write to")->required();
  sub->add_option("--type", options->training.type, "bpe (byte-level), wordpiece (BERT's), sentencepiece-bpe or sentencepiece-unigram")
      ->check(CLI::IsMember({"bpe", "wordpiece", "sentencepiece-bpe", "sentencepiece-unigram"}))
      ->capture_default_str();
  sub->add_option("--vocab-size", options->training.vocab_size, "Tokens")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--min-frequency", options->training.min_frequency,
                  "bpe, wordpiece: pairs seen less often are not joined; default: 2")
      ->check(CLI::PositiveNumber);
  // Not bound to the members: CLI11 would set an optional flag that is not given to 0.
  sub->add_flag_function(
      "--split-digits", [options](int64_t count) { options->training.split_digits = count > 0; },
      "bpe: every digit is a token of its own");
  sub->add_option("--special-tokens", options->training.special_tokens,
                  "Tokens that no text becomes; bpe: the first ends a text, default: <|endoftext|>");
  sub->add_flag_function(
      "--byte-fallback,!--no-byte-fallback", [options](int64_t count) { options->training.byte_fallback = count > 0; },
      "sentencepiece: unknown characters become bytes (default) or <unk>");
  sub->add_option("--character-coverage", options->training.character_coverage,
                  "sentencepiece: share of the characters with a token of their own; default: 0.9995")
      ->check(CLI::Range(0.5, 1.0));
  sub->add_option(
         "--input-sentence-size", options->training.input_sentence_size,
         "sentencepiece: learn from a random sample of so many lines, which bounds the memory; default: from all")
      ->check(CLI::Range(int64_t{101}, std::numeric_limits<int64_t>::max()).description("over 100"));
  sub->add_flag_function(
      "--lowercase,!--no-lowercase", [options](int64_t count) { options->training.lowercase = count > 0; },
      "wordpiece: texts lose their capitals and accents (default)");
  sub->add_option("--extra-ids", options->training.extra_ids,
                  "So many sentinels <extra_id_0>, <extra_id_1>, ..., behind which T5's training hides text")
      ->check(CLI::Range(0, 10000));
  options->read.add_to(*sub);
  sub->add_option("--threads", options->threads, "0: one for each core")->check(CLI::NonNegativeNumber);
  sub->add_flag("--overwrite", options->overwrite, "Replace the tokenizer that is there");
  sub->footer(
      "Examples:\n"
      "  llmtk tokenize train corpus/*.txt --vocab-size 16000 -o my-tokenizer\n"
      "  llmtk tokenize train rows.jsonl --type sentencepiece-unigram --vocab-size 8000 -o my-tokenizer");
  sub->callback(
      [&context, options] { context.run = [&context, options] { return train(*options, context.common.json); }; });
}

}  // namespace llmtk
