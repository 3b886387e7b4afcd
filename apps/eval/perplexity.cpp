// llmtk eval perplexity: how well a model predicts texts of any length, in windows.

#include <cmath>
#include <iostream>
#include <memory>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "eval/eval.h"
#include "eval/results.h"
#include "eval/rows.h"
#include "eval/scorer.h"
#include "inspect/inspect.h"
#include "models/registry.h"

namespace llmtk {
namespace {

constexpr int64_t kLongest = 1024;  // of a window, where nothing else is said

struct PerplexityOptions {
  EvalOptions eval;
  std::vector<std::string> files;
  std::optional<std::string> text_field;
  int64_t max_length = 0, stride = 0;  // 0: as --help says
};

struct Text {
  std::string text, where;
};

/// A .jsonl file's rows, or a whole file of any other kind.
std::vector<Text> read_texts(const PerplexityOptions& options) {
  std::vector<Text> texts;
  bool rows = false;
  for (const std::string& file : options.files) {
    rows = rows || fs::path(file).extension() == ".jsonl";
    if (fs::path(file).extension() == ".jsonl")
      for (const Row& row : read_rows(file))
        texts.push_back({text_field_of(row, options.text_field.value_or("text")), row.where});
    else
      texts.push_back({read_file(file), file});
  }
  if (options.text_field && !rows)
    throw Error(Exit::usage,
                {.what = "--text-field has no effect on files that are one text", .expected = "a .jsonl file"});
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

/// Bytes of a text without those of tokens that no window scores, as its first one.
size_t scored_bytes(const Text& text, const std::vector<text::TokenId>& ids,
                    const std::vector<generate::Window>& windows, const text::Tokenizer& tokenizer) {
  size_t not_scored = 0, next = 0;
  for (const auto& window : windows) {
    for (size_t t = next; t < window.first; ++t)
      if (!tokenizer.is_special(ids[t]))
        not_scored += (t == 0 ? tokenizer.first_token_bytes(ids[t]) : tokenizer.token_bytes(ids[t])).size();
    next = window.end;
  }
  return text.text.size() - std::min(not_scored, text.text.size());
}

Json summary_of(const Sums& sums, size_t bytes, size_t texts, size_t windows) {
  const double mean = sums.nll / static_cast<double>(sums.tokens);
  return {{"perplexity", std::exp(mean)},
          {"nll_per_token", mean},
          {"bits_per_byte", sums.nll / std::log(2.0) / static_cast<double>(bytes)},
          {"tokens", sums.tokens},
          {"bytes", bytes},
          {"texts", texts},
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

int run_perplexity(PerplexityOptions& options, bool json) {
  const auto texts = read_texts(options);
  Scorer scorer(options.eval, /*truncate=*/false);
  models::as<nn::CausalModel>(scorer.model(), options.eval.model.model);
  resolve_lengths(options, *scorer.model());
  std::vector<std::vector<text::TokenId>> ids;
  std::vector<Piece> pieces;
  size_t bytes = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    ids.push_back(scorer.tokens(texts[i].text, texts[i].where));
    const auto windows = generate::windows(ids[i].size(), options.max_length, options.stride);
    bytes += scored_bytes(texts[i], ids[i], windows, scorer.tokenizer());
    for (const auto& window : windows)
      if (window.first < window.end) pieces.push_back({i, window});
  }
  if (pieces.empty())
    throw Error(Exit::data, {.what = "nothing to score", .where = options.files[0], .expected = "at least 2 tokens"});

  Sums sums;
  Results results(options.eval.output, describe_run("perplexity", options.eval, scorer.folder(), options.files),
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
  Json summary = summary_of(sums, bytes, texts.size(), pieces.size());
  summary["max_length"] = options.max_length;
  summary["stride"] = options.stride;
  json ? print_json(summary) : print_summary(summary);
  return 0;
}

}  // namespace

void add_perplexity_command(CLI::App& app, EvalContext& context) {
  auto options = std::make_shared<PerplexityOptions>();
  auto& command = add_eval_command(app, context, "perplexity", "How well a model predicts texts, in strided windows",
                                   options, run_perplexity);
  Settings& settings = options->eval.settings;
  command.add_option("files", options->files, "Texts: the rows of a .jsonl file, or any other file as a whole")
      ->required();
  settings.add(command, "--text-field", options->text_field, "The key of a row that holds the text; default: text");
  settings
      .add(command, "--max-length", options->max_length,
           "Tokens of a window; default: as many as the model can see, at most 1024")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 31));
  settings
      .add(command, "--stride", options->stride,
           "Tokens from one window's beginning to the next one's; default: half a window")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command.footer(
      "Examples:\n  llmtk eval perplexity gpt2 book.txt --stride 512\n"
      "  llmtk eval perplexity runs/poems held_out.jsonl --output ppl.jsonl --json");
}

}  // namespace llmtk
