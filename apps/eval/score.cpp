// llmtk eval score: the log-probability of every token of a text, or of a completion after its prompt.

#include <iostream>
#include <memory>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/utf8.h"
#include "eval/eval.h"
#include "eval/results.h"
#include "eval/rows.h"
#include "eval/scorer.h"
#include "inspect/inspect.h"
#include "inspect/table.h"

namespace llmtk {
namespace {

struct ScoreOptions {
  EvalOptions eval;
  std::string file, text, prompt, completion;
  bool truncate = false;
};

/// Rows {"text"} or {"prompt", "completion"}, from the file or from the flags.
std::vector<Row> rows_of(const ScoreOptions& options) {
  if (!options.file.empty()) return read_rows(options.file);
  if (!options.text.empty()) return {{{{"text", options.text}}, "--text"}};
  if (!options.completion.empty())
    return {{{{"prompt", options.prompt}, {"completion", options.completion}}, "--completion"}};
  throw Error(Exit::usage, {.what = "nothing to score", .expected = "a file, --text, or --prompt with --completion"});
}

generate::Scored encoded(const Row& row, Scorer& scorer) {
  const bool text = row.json.contains("text"), completion = row.json.contains("completion");
  if (text == completion)
    throw Error(Exit::data, {.what = text ? "a row with both a text and a completion" : "a row without a text",
                             .where = row.where,
                             .expected = R"({"text": "..."} or {"prompt": "...", "completion": "..."})"});
  return text ? scorer.whole(text_field_of(row, "text"), row.where)
              : scorer.continuation(text_field_of(row, "prompt"), text_field_of(row, "completion"), row.where);
}

Json to_json(size_t index, const generate::Scored& row, const std::vector<float>& logprobs,
             const text::Tokenizer& tokenizer) {
  Json tokens = Json::array();
  for (const auto id : row.targets) tokens.push_back(tokenizer.id_to_token(id));
  return {{"index", index},       {"context_ids", row.context},
          {"ids", row.targets},   {"tokens", std::move(tokens)},
          {"logprobs", logprobs}, {"logprob", std::accumulate(logprobs.begin(), logprobs.end(), 0.0)}};
}

void print_row(const Json& result, const text::Tokenizer& tokenizer, bool several) {
  const size_t index = result["index"];
  if (several) std::cout << (index ? "\n" : "") << "=== row " << index + 1 << "\n";
  Table table({"logprob", "token"}, {0});
  for (size_t t = 0; t < result["ids"].size(); ++t)
    table.add({fixed(result["logprobs"][t], 6), one_line(tokenizer.token_bytes(result["ids"][t]))});
  table.add({fixed(result["logprob"], 6), "(together)"});
  table.print();
}

int run_score(ScoreOptions& options, bool json) {
  const auto rows = rows_of(options);
  Scorer scorer(options.eval, options.truncate);
  std::vector<generate::Scored> scored;  // all of them first: a row that is wrong is said before the work
  for (const Row& row : rows) scored.push_back(encoded(row, scorer));
  scorer.say_truncated();
  const auto show = [&](const Json& result) {
    json ? print_json(result) : print_row(result, scorer.tokenizer(), rows.size() > 1);
  };
  std::vector<std::string> inputs;
  if (!options.file.empty()) inputs.push_back(options.file);
  Results results(options.eval.output, describe_run("score", options.eval, scorer.folder(), inputs), show);
  in_blocks(results, rows.size(), kBlock * static_cast<size_t>(options.eval.batch_size), "row",
            [&](size_t begin, size_t end) {
              const auto logprobs = scorer.score(std::span(scored).subspan(begin, end - begin));
              for (size_t i = begin; i < end; ++i) {
                const Json result = to_json(i, scored[i], logprobs[i - begin], scorer.tokenizer());
                results.add(result);
                show(result);
              }
            });
  return 0;
}

}  // namespace

void add_score_command(CLI::App& app, EvalContext& context) {
  auto options = std::make_shared<ScoreOptions>();
  auto& command = add_eval_command(
      app, context, "score", "The log-probability of each token of a text, or of a completion", options, run_score);
  Settings& settings = options->eval.settings;
  auto* file =
      command.add_option("file", options->file, R"(JSON lines: {"text": ...} or {"prompt": ..., "completion": ...})");
  auto* text = settings.add(command, "--text", options->text, "A text; all its tokens but the first are scored");
  auto* completion = settings.add(command, "--completion", options->completion, "What is scored after --prompt");
  text->excludes(file);
  completion->excludes(file)->excludes(text);
  settings.add(command, "--prompt", options->prompt, "What stands before --completion")->needs(completion);
  settings
      .add_flag(command, "--truncate", options->truncate,
                "Drop the beginning of prompts that are too long for the model")
      ->excludes(text);
  command.footer(
      "Examples:\n  llmtk eval score gpt2 --prompt \"The capital of France is\" --completion \" Paris\"\n"
      "  llmtk eval score runs/poems rows.jsonl --output scores.jsonl --json");
}

}  // namespace llmtk
