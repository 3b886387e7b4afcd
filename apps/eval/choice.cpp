// llmtk eval choice: questions with several answers; the model's is the one that it holds for the most probable.

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "core/error.h"
#include "core/utf8.h"
#include "eval/eval.h"
#include "eval/results.h"
#include "eval/rows.h"
#include "eval/scorer.h"
#include "inspect/inspect.h"

namespace llmtk {
namespace {

struct ChoiceOptions {
  EvalOptions eval;
  std::string file;
  std::string prompt_field = "prompt", choices_field = "choices", label_field = "label";
  std::string separator = " ";
  bool truncate = false;
};

struct Question {
  std::string prompt;
  std::vector<std::string> choices;
  size_t label = 0;
  size_t first = 0;  // of its choices among all
};

/// A number from 0, a letter from A, or the text of a choice.
size_t label_of(const Row& row, const std::string& key, const std::vector<std::string>& choices) {
  const Json label = row.json.value(key, Json());
  if (label.is_number_integer() && label.get<int64_t>() >= 0 && label.get<size_t>() < choices.size())
    return label.get<size_t>();
  if (label.is_string()) {
    const auto text = label.get<std::string>();
    if (const auto found = std::ranges::find(choices, text); found != choices.end())
      return static_cast<size_t>(found - choices.begin());
    if (text.size() == 1 && text[0] >= 'A' && static_cast<size_t>(text[0] - 'A') < choices.size())
      return static_cast<size_t>(text[0] - 'A');
  }
  throw Error(Exit::data, {.what = "the label '" + key + "' is none of the choices",
                           .where = row.where,
                           .got = label.dump(),
                           .expected = "a number from 0 to " + std::to_string(choices.size() - 1) +
                                       ", a letter from A, or a choice's text"});
}

Question question_of(const Row& row, const ChoiceOptions& options) {
  Question question{.prompt = text_field_of(row, options.prompt_field)};
  const Json choices = row.json.value(options.choices_field, Json());
  const auto is_text = [](const Json& choice) {
    return choice.is_string() && !choice.get_ref<const std::string&>().empty();
  };
  if (!choices.is_array() || choices.size() < 2 || !std::ranges::all_of(choices, is_text))
    throw Error(Exit::data, {.what = "the choices '" + options.choices_field + "' cannot be used",
                             .where = row.where,
                             .got = choices.is_null() ? "none" : std::string(cut_to_width(choices.dump(), 60)),
                             .expected = "a list of at least two texts"});
  question.choices = choices.get<std::vector<std::string>>();
  question.label = label_of(row, options.label_field, question.choices);
  return question;
}

/// The first of the largest.
size_t best(const std::vector<double>& scores) {
  return static_cast<size_t>(std::ranges::max_element(scores) - scores.begin());
}

Json to_json(size_t index, const Question& question, std::span<const std::vector<float>> logprobs) {
  std::vector<double> sums, per_token, per_character;
  std::vector<size_t> tokens;
  for (size_t c = 0; c < question.choices.size(); ++c) {
    sums.push_back(std::accumulate(logprobs[c].begin(), logprobs[c].end(), 0.0));
    tokens.push_back(logprobs[c].size());
    per_token.push_back(sums[c] / static_cast<double>(tokens[c]));
    per_character.push_back(sums[c] / static_cast<double>(count_code_points(question.choices[c])));
  }
  return {{"index", index},
          {"label", question.label},
          {"prediction", best(sums)},
          {"prediction_per_token", best(per_token)},
          {"prediction_per_character", best(per_character)},
          {"logprobs", sums},
          {"tokens", tokens}};
}

struct Score {
  int64_t questions = 0, plain = 0, per_token = 0, per_character = 0;

  void add(const Json& result) {
    const auto right = [&](const char* key) { return result.at(key) == result.at("label"); };
    ++questions;
    plain += right("prediction");
    per_token += right("prediction_per_token");
    per_character += right("prediction_per_character");
  }
  Json summary() const {
    const auto share = [&](int64_t right) { return static_cast<double>(right) / static_cast<double>(questions); };
    return {{"accuracy", share(plain)},
            {"accuracy_per_token", share(per_token)},
            {"accuracy_per_character", share(per_character)},
            {"questions", questions}};
  }
};

int run_choice(ChoiceOptions& options, bool json) {
  std::vector<Question> questions;
  std::vector<std::string> places;
  for (const Row& row : read_rows(options.file)) {
    questions.push_back(question_of(row, options));
    places.push_back(row.where);
  }
  Scorer scorer(options.eval, options.truncate);
  std::vector<generate::Scored> scored;
  for (size_t i = 0; i < questions.size(); ++i) {
    questions[i].first = scored.size();
    for (const std::string& choice : questions[i].choices)
      scored.push_back(scorer.continuation(questions[i].prompt, options.separator + choice, places[i]));
  }
  scorer.say_truncated();

  Score score;
  Results results(options.eval.output, describe_run("choice", options.eval, scorer.folder(), {options.file}),
                  [&](const Json& result) { score.add(result); });
  in_blocks(results, questions.size(), kBlock * static_cast<size_t>(options.eval.batch_size), "question",
            [&](size_t begin, size_t end) {
              const size_t first = questions[begin].first;
              const size_t last = end < questions.size() ? questions[end].first : scored.size();
              const auto logprobs = scorer.score(std::span(scored).subspan(first, last - first));
              for (size_t i = begin; i < end; ++i) {
                const Json result =
                    to_json(i, questions[i],
                            std::span(logprobs).subspan(questions[i].first - first, questions[i].choices.size()));
                score.add(result);
                results.add(result);
              }
            });
  json ? print_json(score.summary()) : print_summary(score.summary());
  return 0;
}

}  // namespace

void add_choice_command(CLI::App& app, EvalContext& context) {
  auto options = std::make_shared<ChoiceOptions>();
  auto& command = add_eval_command(
      app, context, "choice", "Accuracy in multiple choice, by the probability of each answer", options, run_choice);
  Settings& settings = options->eval.settings;
  command.add_option("file", options->file, R"(JSON lines: {"prompt": ..., "choices": [..., ...], "label": 0})")
      ->required();
  settings.add(command, "--prompt-field", options->prompt_field, "The key of the prompt")->capture_default_str();
  settings.add(command, "--choices-field", options->choices_field, "The key of the list of answers")
      ->capture_default_str();
  settings
      .add(command, "--label-field", options->label_field,
           "The key of the right answer: a number from 0, a letter from A, or its text")
      ->capture_default_str();
  settings.add(command, "--separator", options->separator,
               "What stands between the prompt and an answer; default: a blank");
  settings.add_flag(command, "--truncate", options->truncate,
                    "Drop the beginning of prompts that are too long for the model");
  command.footer(
      "Examples:\n  llmtk eval choice gpt2 questions.jsonl\n"
      "  llmtk eval choice gpt2 arc.jsonl --prompt-field question --label-field answerKey --output arc.results.jsonl "
      "--json");
}

}  // namespace llmtk
