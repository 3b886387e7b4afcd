// llmtk tokenize shard: text of any size to token shards that training maps into memory.

#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "data/shard_writer.h"
#include "text/tokenizer.h"
#include "tokenize.h"

namespace llmtk {
namespace {

struct ShardCommandOptions {
  std::vector<std::string> inputs;
  std::string tokenizer, output, split_by = "hash";
  ReadFlags read;
  data::ShardOptions shards;
  bool no_bos = false, no_eos = false, verify = false;
};

nlohmann::ordered_json list(const std::vector<data::ShardInfo>& shards) {
  auto rows = nlohmann::ordered_json::array();
  for (const auto& shard : shards)
    rows.push_back({{"file", shard.file}, {"tokens", shard.tokens}, {"documents", shard.documents}});
  return rows;
}

int shard(const ShardCommandOptions& options, bool json) {
  data::ShardOptions shards = options.shards;
  shards.prepend_bos = !options.no_bos;
  shards.append_eos = !options.no_eos;
  shards.read = options.read.options();
  shards.split_by = data::parse_split_by(options.split_by);
  shards.on_progress = data::progress_lines();
  const auto tokenizer = text::load_tokenizer(options.tokenizer);
  const auto summary = data::write_shards(options.inputs, *tokenizer, options.tokenizer, options.output, shards);
  if (options.verify) data::verify_shards(options.output);
  if (json) {
    std::cout
        << nlohmann::ordered_json{{"folder", options.output},         {"was_complete", summary.was_complete},
                                  {"resumed", summary.resumed},       {"bytes", summary.bytes},
                                  {"documents", summary.documents},   {"tokens", summary.tokens},
                                  {"skipped_lines", summary.skipped}, {"replaced_lines", summary.replaced},
                                  {"empty_rows", summary.empty},      {"token_type", data::to_string(summary.type)},
                                  {"train", list(summary.train)},     {"validation", list(summary.validation)}}
        << '\n';
    return 0;
  }
  char line[200];
  std::snprintf(line, sizeof line, "%s%llu tokens of %llu documents in %zu shards (%zu for validation)",
                summary.was_complete ? "nothing left to do: "
                : summary.resumed    ? "went on and finished: "
                                     : "",
                static_cast<unsigned long long>(summary.tokens), static_cast<unsigned long long>(summary.documents),
                summary.train.size() + summary.validation.size(), summary.validation.size());
  log::info(line);
  if (summary.skipped + summary.replaced > 0)
    log::warn(std::to_string(summary.skipped) + " bad lines left out, " + std::to_string(summary.replaced) + " mended");
  return 0;
}

}  // namespace

void add_shard_command(CLI::App& app, TokenizeContext& context) {
  auto options = std::make_shared<ShardCommandOptions>();
  data::ShardOptions& shards = options->shards;
  CLI::App* sub = app.add_subcommand("shard", "Text of any size to token shards");
  sub->add_option("inputs", options->inputs, kInputsHelp)->required();
  add_tokenizer_option(*sub, options->tokenizer);
  sub->add_option("-o,--output", options->output, "The folder to write to; a run that was stopped goes on there")
      ->required();
  sub->add_option("--shard-tokens", shards.shard_tokens, "Tokens of one shard")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_option("--validation-fraction", shards.validation_fraction, "Share of the documents held out")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str();
  sub->add_option("--split-by", options->split_by, "Held out: by a hash of the text, or the tail of the input")
      ->check(CLI::IsMember({"hash", "tail"}))
      ->capture_default_str();
  sub->add_option("--seed", shards.seed, "Of the hash")->capture_default_str();
  sub->add_flag("--no-bos", options->no_bos, "Without what the tokenizer itself puts before a text (bos), if anything");
  sub->add_flag("--no-eos", options->no_eos, "Without the tokenizer's end-of-text token after each document");
  options->read.add_to(*sub);
  sub->add_option("--threads", shards.threads, "0: one for each core")->check(CLI::NonNegativeNumber);
  sub->add_flag("--overwrite", shards.overwrite, "Throw away shards of other settings or other input");
  sub->add_flag("--verify", options->verify, "Read every shard again and compare checksums");
  sub->footer(
      "Examples:\n"
      "  llmtk tokenize shard corpus/ -t my-tokenizer -o shards --validation-fraction 0.01\n"
      "  llmtk tokenize shard 'books/**/*.txt' rows.jsonl -t gpt2-folder -o shards --bad-lines skip");
  sub->callback([&context, options, sub] {
    context.run = [&context, options, sub] {
      if (options->shards.validation_fraction == 0)
        refuse_idle(*sub, {"--split-by", "--seed"}, "without --validation-fraction");
      if (options->split_by == "tail") refuse_idle(*sub, {"--seed"}, "with --split-by tail");
      return shard(*options, context.common.json);
    };
  });
}

}  // namespace llmtk
