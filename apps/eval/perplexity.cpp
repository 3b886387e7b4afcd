// llmtk eval perplexity: how well a model predicts texts of any length, in windows.

#include <cmath>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "eval/eval.h"
#include "eval/rows.h"
#include "eval/scorer.h"
#include "models/registry.h"

namespace llmtk {
namespace {

constexpr int64_t kLongest = 1024;  // of a window, where nothing else is said

struct PerplexityOptions {
  EvalOptions eval;
  std::vector<std::string> files;
  std::string text_field = "text";
  int64_t max_length = 0, stride = 0;  // 0: as --help says
};

struct Text {
  std::string text, where;
};

/// A .jsonl file's rows, or a whole file of any other kind.
std::vector<Text> read_texts(const PerplexityOptions& options) {
  std::vector<Text> texts;
  for (const std::string& file : options.files) {
    if (fs::path(file).extension() == ".jsonl")
      for (const Row& row : read_rows(file)) texts.push_back({text_field_of(row, options.text_field), row.where});
    else
      texts.push_back({read_file(file), file});
  }
  return texts;
}

struct Piece {
  size_t text;
  generate::Window window;
};

/// What the windows add up to.
struct Sums {
  int64_t tokens = 0;
  double nll = 0;

  void add(const Json& result) {
    tokens += result.at("tokens").get<int64_t>();
    nll += result.at("nll").get<double>();
  }
};

Json summary_of(const Sums& sums, const std::vector<Text>& texts, size_t windows) {
  size_t bytes = 0;
  for (const Text& text : texts) bytes += text.text.size();
  const double mean = sums.nll / static_cast<double>(sums.tokens);
  return {{"perplexity", std::exp(mean)},
          {"nll_per_token", mean},
          {"bits_per_byte", sums.nll / std::log(2.0) / static_cast<double>(bytes)},
          {"tokens", sums.tokens},
          {"bytes", bytes},
          {"texts", texts.size()},
          {"windows", windows}};
}

/// --max-length and --stride, or what stands for them.
void resolve_lengths(PerplexityOptions& options, const nn::Model& model) {
  if (options.max_length == 0) options.max_length = std::min(model.max_positions(), kLongest);
  if (options.max_length > model.max_positions())
    throw Error(Exit::usage, {.what = "--max-length is longer than the model can see",
                              .got = std::to_string(options.max_length),
                              .expected = "at most " + std::to_string(model.max_positions())});
  if (options.stride == 0) options.stride = std::max<int64_t>(1, options.max_length / 2);
  if (options.stride > options.max_length)
    throw Error(Exit::usage, {.what = "--stride is longer than a window: tokens would be left out",
                              .got = std::to_string(options.stride),
                              .expected = "at most " + std::to_string(options.max_length)});
}

int run(PerplexityOptions options, bool json) {
  const auto texts = read_texts(options);
  Scorer scorer(options.eval, /*truncate=*/false);
  models::as<nn::CausalModel>(scorer.model(), options.eval.model.model);
  resolve_lengths(options, *scorer.model());
  std::vector<std::vector<text::TokenId>> ids;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < texts.size(); ++i) {
    ids.push_back(scorer.tokens(texts[i].text, texts[i].where));
    for (const auto& window : generate::windows(ids[i].size(), options.max_length, options.stride))
      if (window.first < window.end) pieces.push_back({i, window});
  }
  if (pieces.empty())
    throw Error(Exit::data, {.what = "nothing to score", .where = options.files[0], .expected = "at least 2 tokens"});

  Sums sums;
  const Json settings = {
      {"max_length", options.max_length}, {"stride", options.stride}, {"text_field", options.text_field}};
  Results results(options.eval.output,
                  describe_run("perplexity", options.eval, scorer.folder(), options.files, settings),
                  [&](const Json& result) { sums.add(result); });
  in_blocks(results, pieces.size(), kBlock * static_cast<size_t>(options.eval.batch_size), "window",
            [&](size_t begin, size_t end) {
              std::vector<generate::Scored> rows;
              for (size_t i = begin; i < end; ++i) {
                const auto at = ids[pieces[i].text].begin();
                const auto& [from, first, to] = pieces[i].window;
                rows.push_back({.context = {at + from, at + first}, .targets = {at + first, at + to}});
              }
              const auto logprobs = scorer.score(rows);
              for (size_t i = begin; i < end; ++i) {
                double nll = 0;
                for (const float logprob : logprobs[i - begin]) nll -= logprob;
                const Json result = {{"index", i},
                                     {"text", texts[pieces[i].text].where},
                                     {"begin", pieces[i].window.begin},
                                     {"first", pieces[i].window.first},
                                     {"end", pieces[i].window.end},
                                     {"tokens", logprobs[i - begin].size()},
                                     {"nll", nll}};
                sums.add(result);
                results.add(result);
              }
            });
  Json summary = summary_of(sums, texts, pieces.size());
  summary["max_length"] = options.max_length;
  summary["stride"] = options.stride;
  json ? print_json(summary) : print_summary(summary);
  return 0;
}

}  // namespace

void add_perplexity_command(CLI::App& app, EvalContext& context) {
  auto options = std::make_shared<PerplexityOptions>();
  auto* command = app.add_subcommand("perplexity", "How well a model predicts texts, in strided windows");
  add_eval_options(*command, options->eval);
  command->add_option("files", options->files, "Texts: the rows of a .jsonl file, or any other file as a whole")
      ->required();
  command->add_option("--text-field", options->text_field, "The key of a row that holds the text")
      ->capture_default_str();
  command
      ->add_option("--max-length", options->max_length,
                   "Tokens of a window; default: as many as the model can see, at most 1024")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 31));
  command
      ->add_option("--stride", options->stride,
                   "Tokens from one window's beginning to the next one's; default: half a window")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command->footer(
      "Examples:\n  llmtk eval perplexity gpt2 book.txt --stride 512\n"
      "  llmtk eval perplexity runs/poems held_out.jsonl --output ppl.jsonl --json");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
