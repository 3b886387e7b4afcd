#include "reward_score.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <iostream>

#include "core/error.h"
#include "core/log.h"
#include "data/finetuning.h"
#include "data/loader.h"
#include "inspect/table.h"
#include "open_model.h"
#include "rl/reward_objective.h"
#include "scorer_folder.h"

namespace llmtk {
namespace {

using Json = nlohmann::ordered_json;

struct ScoreOptions {
  ModelOptions model;
  std::string input, chat_template = "auto";
  int64_t batch_size = 8, max_length = 0;
  bool pairs = false;
};

/// The rows as a reward model is trained on them: answers with their ends, conversations in the chat template.
data::FinetuningData open_rows(const ScoreOptions& options, const OpenModel& opened) {
  data::FinetuneDataConfig config;
  config.train = {{.path = options.input}};
  config.chat_template = options.chat_template;
  config.max_length = options.max_length;
  if (!options.pairs) config.train_on = "all";
  data::FinetuneContext context{
      .objective = options.pairs ? data::Objective::preference : data::Objective::causal_lm,
      .tokenizer = opened.tokenizer.get(),
      .tokenizer_path = options.model.tokenizer.empty() ? opened.folder.string() : options.model.tokenizer};
  context.loader.vocab_size = opened.model->vocab_size();
  context.max_positions = opened.model->max_positions();
  return data::open_finetuning_data(config, context);
}

/// What is printed of each row, and what of all.
class Printer {
 public:
  Printer(bool pairs, bool json) : pairs_(pairs), json_(json) {}

  void row(const std::string& where, float first, float second) {
    ++rows_;
    sum_ += first;
    wins_ += pairs_ && first > second;
    margins_ += pairs_ ? first - second : 0;
    if (json_) {
      const Json row = pairs_ ? Json{{"where", where}, {"chosen", first}, {"rejected", second}}
                              : Json{{"where", where}, {"score", first}};
      std::cout << row.dump() << '\n';
    } else {
      std::cout << fixed(first, 4) << (pairs_ ? "  " + fixed(second, 4) : "") << "  " << where << '\n';
    }
  }
  void summary() const {
    const auto n = static_cast<double>(rows_);
    Json all = {{"rows", rows_}};
    if (pairs_) {
      all["accuracy"] = wins_ / n;
      all["margin"] = margins_ / n;
    } else {
      all["mean_score"] = sum_ / n;
    }
    if (json_)
      std::cout << Json{{"summary", all}}.dump() << '\n';
    else
      log::info(pairs_ ? "accuracy " + fixed(wins_ / n, 4) + ", margin " + fixed(margins_ / n, 4) + " of " +
                             std::to_string(rows_) + " pairs"
                       : "mean score " + fixed(sum_ / n, 4) + " of " + std::to_string(rows_) + " texts");
  }

 private:
  bool pairs_, json_;
  int64_t rows_ = 0;
  double sum_ = 0, margins_ = 0, wins_ = 0;
};

int score(const ScoreOptions& options, bool json) {
  const torch::autograd::AutoGradMode no_grad(false);
  OpenModel opened = open_model(options.model);
  check_scorer(*opened.model, options.model.model);
  const auto data = open_rows(options, opened);
  // Not const in the loader's eyes, which only reads.
  const auto rows = std::const_pointer_cast<data::RowSource>(data.train_rows);
  data::RowLoader loader({{rows, 1, 0, options.input}}, {.batch_size = options.batch_size, .shuffle = false});
  Printer printer(options.pairs, json);
  uint64_t at = 0;
  for (data::Batch batch; loader.next(batch);) {
    const rl::Answers texts = rl::split_answers(batch, opened.model->device());
    const at::Tensor rewards = rl::text_rewards(*opened.model, texts).cpu();
    const float* reward = rewards.const_data_ptr<float>();
    for (int64_t row = 0; row < batch.rows; ++row, ++at) {
      const std::string place = rows->place(at, 0);
      printer.row(place.substr(0, place.rfind(", token")), reward[row],
                  options.pairs ? reward[batch.rows + row] : 0.0f);
    }
  }
  printer.summary();
  return 0;
}

}  // namespace

void add_score_command(CLI::App& app, const CommonOptions& common, std::function<int()>& run) {
  auto options = std::make_shared<ScoreOptions>();
  CLI::App* command = app.add_subcommand("score", "Rates texts of a file");
  add_model_options(*command, options->model);
  command->add_option("--input", options->input, "Rows as `llmtk data` reads them: texts, answers, conversations")
      ->required();
  command->add_flag("--pairs", options->pairs,
                    "Rows are pairs: both are rated, and how often the chosen one wins is told");
  command->add_option("--batch-size", options->batch_size, "Rows at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--max-length", options->max_length,
                      "Tokens of a text at most; 0: 1024, or what the model can see");
  command->add_option("--chat-template", options->chat_template, "auto, alpaca, or a Jinja file")
      ->capture_default_str();
  command->callback([options, &common, &run] { run = [options, &common] { return score(*options, common.json); }; });
}

}  // namespace llmtk
