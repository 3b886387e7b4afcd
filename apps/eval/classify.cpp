// llmtk eval classify: how often an encoder with a classification head is right, class by class.

#include <ATen/ops/softmax.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/log.h"
#include "eval/eval.h"
#include "eval/rows.h"
#include "inspect/table.h"
#include "io/model_folder.h"
#include "open_encoder.h"

namespace llmtk {
namespace {

struct ClassifyOptions {
  EvalOptions eval;
  std::string file;
  std::string text_field = "text", pair_field = "text_pair", label_field = "label";
  bool truncate = false;
};

struct Example {
  text::Encoding encoding;
  size_t label = 0;
};

/// The names of the classes, by number. Throws Error(usage) for a model that does not choose one of several.
std::vector<std::string> class_names(const OpenEncoder& open) {
  const Json config = open.model->config();
  const std::string problem = config.value("problem_type", Json()).is_string() ? config["problem_type"] : Json("");
  const auto labels = static_cast<size_t>(open.model->num_labels());
  if (open.model->head() != nn::EncoderHead::sequence_classification || labels < 2 ||
      problem == "multi_label_classification")
    throw Error(Exit::usage, {.what = "the model does not choose one class of several",
                              .where = open.folder.string(),
                              .got = config.value("architectures", Json()).dump() + ", " + std::to_string(labels) +
                                     " labels" + (problem.empty() ? "" : ", " + problem),
                              .expected = "sequence classification with at least two labels"});
  return open.model->label_names();
}

/// A class's number or its name.
size_t class_of(const Row& row, const std::string& key, const std::vector<std::string>& names) {
  const Json label = row.json.value(key, Json());
  if (label.is_number_integer() && label.get<int64_t>() >= 0 && label.get<size_t>() < names.size())
    return label.get<size_t>();
  if (label.is_string())
    if (const auto found = std::ranges::find(names, label.get<std::string>()); found != names.end())
      return static_cast<size_t>(found - names.begin());
  throw Error(Exit::data, {.what = "the label '" + key + "' is no class of the model",
                           .where = row.where,
                           .got = label.dump(),
                           .expected = Json(names).dump() + ", or a number below " + std::to_string(names.size())});
}

/// A text's end is dropped where it is too long, what the tokenizer puts around it stays. Counts those in `truncated`.
text::Encoding encode_example(const Row& row, const ClassifyOptions& options, const OpenEncoder& open,
                              int64_t& truncated) {
  const std::string text = text_field_of(row, options.text_field);
  std::optional<std::string> pair;
  if (row.json.contains(options.pair_field)) pair = text_field_of(row, options.pair_field);
  encode_text(*open.tokenizer, text + pair.value_or(""), false, row.where);  // says where it is not UTF-8
  const bool special = options.eval.add_special_tokens;
  text::Encoding encoding = open.tokenizer->encode_pair(text, pair, special);
  const auto most = static_cast<size_t>(open.model->max_positions());
  check_ids(open, encoding.ids, row.where);
  if (encoding.ids.empty()) throw Error(Exit::data, {.what = "a text without tokens", .where = row.where});
  if (encoding.ids.size() <= most) return encoding;
  if (!options.truncate || pair)
    throw Error(Exit::data, {.what = "the row is longer than the model can see",
                             .where = row.where,
                             .got = std::to_string(encoding.ids.size()) + " tokens",
                             .expected = "at most " + std::to_string(most),
                             .hint = pair ? "a pair of texts is not cut" : "--truncate drops the end of such texts"});
  ++truncated;
  const auto bare = open.tokenizer->encode_pair(text, std::nullopt, false).ids;
  const auto around = std::ranges::search(encoding.ids, bare);  // what the tokenizer puts around the text's tokens
  const auto after = static_cast<size_t>(encoding.ids.end() - around.end());
  const auto cut = static_cast<ptrdiff_t>(most - after);
  const auto drop = [&](std::vector<text::TokenId>& values) {
    values.erase(values.begin() + cut, values.end() - static_cast<ptrdiff_t>(after));
  };
  drop(encoding.ids);
  drop(encoding.type_ids);
  return encoding;
}

/// Probabilities of the classes, [B, labels] float32, of rows in any order; rows of like length run together.
std::vector<std::vector<float>> probabilities(const OpenEncoder& open, std::span<const Example> rows,
                                              int64_t batch_size) {
  const c10::NoGradGuard no_gradients;
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return rows[i].encoding.ids.size(); });
  std::vector<std::vector<float>> result(rows.size());
  for (size_t begin = 0; begin < order.size(); begin += static_cast<size_t>(batch_size)) {
    const auto batch =
        std::span(order).subspan(begin).first(std::min(static_cast<size_t>(batch_size), order.size() - begin));
    std::vector<const std::vector<text::TokenId>*> ids;
    for (const size_t i : batch) ids.push_back(&rows[i].encoding.ids);
    const EncoderBatch inputs = encoder_batch(ids, open);
    at::Tensor types = at::zeros(inputs.input_ids.sizes(), at::kLong);
    for (size_t b = 0; b < batch.size(); ++b) {
      const auto& of_row = rows[batch[b]].encoding.type_ids;
      std::ranges::copy(of_row, types[static_cast<int64_t>(b)].data_ptr<int64_t>());
    }
    const at::Tensor hidden = open.model->forward(
        inputs.input_ids,
        {.attention_mask = inputs.attention_mask, .token_type_ids = types.to(inputs.input_ids.device())});
    const at::Tensor logits = open.model->logits(hidden, inputs.attention_mask);
    const at::Tensor found = at::softmax(logits, -1, at::kFloat).cpu().contiguous();
    if (!found.isfinite().all().item<bool>())
      throw Error(Exit::diverged, {.what = "the model's logits are not finite"});
    for (size_t b = 0; b < batch.size(); ++b) {
      const float* row = found[static_cast<int64_t>(b)].const_data_ptr<float>();
      result[batch[b]].assign(row, row + found.size(1));
    }
  }
  return result;
}

/// How often class i (rows) was taken for class j (columns).
class Confusion {
 public:
  explicit Confusion(std::vector<std::string> names)
      : names_(std::move(names)), counts_(names_.size(), std::vector<int64_t>(names_.size())) {}

  void add(const Json& result) {
    ++counts_.at(result.at("label").get<size_t>()).at(result.at("prediction").get<size_t>());
  }

  Json summary() const {
    const size_t n = names_.size();
    Json classes = Json::object();
    int64_t total = 0, right = 0;
    double f1_sum = 0, taken_and_true = 0, taken_squared = 0, true_squared = 0;
    for (size_t i = 0; i < n; ++i) {
      const int64_t support = std::accumulate(counts_[i].begin(), counts_[i].end(), int64_t{0});
      int64_t taken = 0;
      for (size_t j = 0; j < n; ++j) taken += counts_[j][i];
      const double precision = share(counts_[i][i], taken), recall = share(counts_[i][i], support);
      const double f1 = share(2 * counts_[i][i], taken + support);
      classes[names_[i]] = {{"precision", precision}, {"recall", recall}, {"f1", f1}, {"support", support}};
      total += support;
      right += counts_[i][i];
      f1_sum += f1;
      const auto s = static_cast<double>(support), t = static_cast<double>(taken);
      taken_and_true += s * t;
      taken_squared += t * t;
      true_squared += s * s;
    }
    // Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).
    const double N = static_cast<double>(total), spread = (N * N - taken_squared) * (N * N - true_squared);
    const double correlation = static_cast<double>(right) * N - taken_and_true;
    return {{"accuracy", share(right, total)},
            {"macro_f1", f1_sum / static_cast<double>(n)},
            {"matthews_correlation", spread > 0 ? correlation / std::sqrt(spread) : 0.0},
            {"rows", total},
            {"classes", std::move(classes)},
            {"confusion", counts_}};
  }

 private:
  static double share(int64_t part, int64_t whole) {
    return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  }
  std::vector<std::string> names_;
  std::vector<std::vector<int64_t>> counts_;
};

void print_classes(Json summary) {
  Table table({"class", "rows", "precision", "recall", "f1"}, {1, 2, 3, 4});
  for (const auto& [name, of_class] : summary["classes"].items())
    table.add({one_line(name), of_class["support"].dump(), fixed(of_class["precision"], 6),
               fixed(of_class["recall"], 6), fixed(of_class["f1"], 6)});
  table.print();
  summary.erase("classes");
  summary.erase("confusion");
  print_summary(summary);
}

int run(const ClassifyOptions& options, bool json) {
  const auto rows = read_rows(options.file);
  const fs::path folder = io::find_model(options.eval.model.model);
  const OpenEncoder open = open_encoder(options.eval.model, folder, std::nullopt);
  const auto names = class_names(open);
  std::vector<Example> examples;
  int64_t truncated = 0;
  for (const Row& row : rows)
    examples.push_back({encode_example(row, options, open, truncated), class_of(row, options.label_field, names)});
  if (truncated > 0) log::warn(std::to_string(truncated) + " texts are too long: their end was dropped");

  Confusion confusion(names);
  const Json settings = {{"text_field", options.text_field},
                         {"pair_field", options.pair_field},
                         {"label_field", options.label_field},
                         {"truncate", options.truncate}};
  Results results(options.eval.output, describe_run("classify", options.eval, folder, {options.file}, settings),
                  [&](const Json& result) { confusion.add(result); });
  in_blocks(results, examples.size(), kBlock * static_cast<size_t>(options.eval.batch_size), "row",
            [&](size_t begin, size_t end) {
              const auto found =
                  probabilities(open, std::span(examples).subspan(begin, end - begin), options.eval.batch_size);
              for (size_t i = begin; i < end; ++i) {
                const auto& of_row = found[i - begin];
                const Json result = {{"index", i},
                                     {"label", examples[i].label},
                                     {"prediction", std::ranges::max_element(of_row) - of_row.begin()},
                                     {"probabilities", of_row}};
                confusion.add(result);
                results.add(result);
              }
            });
  json ? print_json(confusion.summary()) : print_classes(confusion.summary());
  return 0;
}

}  // namespace

void add_classify_command(CLI::App& app, EvalContext& context) {
  auto options = std::make_shared<ClassifyOptions>();
  auto* command = app.add_subcommand("classify", "How often an encoder's classification head is right");
  add_eval_options(*command, options->eval);
  command->add_option("file", options->file, R"(JSON lines: {"text": ..., "label": 0}, with "text_pair" for pairs)")
      ->required();
  command->add_option("--text-field", options->text_field, "The key of the text")->capture_default_str();
  command->add_option("--pair-field", options->pair_field, "The key of a second text, where a row has one")
      ->capture_default_str();
  command->add_option("--label-field", options->label_field, "The key of the class: its number or its name")
      ->capture_default_str();
  command->add_flag("--truncate", options->truncate, "Drop the end of texts that are too long for the model");
  command->footer(
      "Examples:\n  llmtk eval classify sentiment-bert reviews.jsonl --truncate\n"
      "  llmtk eval classify nli-bert pairs.jsonl --text-field premise --pair-field hypothesis --json");
  command->callback(
      [&context, options] { context.run = [&context, options] { return run(*options, context.common.json); }; });
}

}  // namespace llmtk
