// llmtk eval classify: how often a classification head is right - of texts or of words, with one label,
// several or quantities.

#include <ATen/ops/tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>

#include "core/error.h"
#include "core/utf8.h"
#include "eval/classify_input.h"
#include "eval/eval.h"
#include "eval/results.h"
#include "inspect/inspect.h"
#include "inspect/table.h"
#include "io/model_folder.h"
#include "metrics/classification.h"
#include "nn/sequence_classifier.h"

namespace llmtk {
namespace {

/// What the head says of each row of a batch: [labels] of a text, [words, labels] of words that have a place.
std::vector<at::Tensor> logits_of(const OpenModel& open, const std::vector<const Example*>& batch) {
  std::vector<const std::vector<text::TokenId>*> ids;
  for (const Example* example : batch) ids.push_back(&example->encoding.ids);
  const EncoderBatch inputs = encoder_batch(ids, *open.model, *open.tokenizer);
  nn::Texts texts{.input_ids = inputs.input_ids, .attention_mask = inputs.attention_mask};
  const auto device = texts.input_ids.device();
  // RoBERTa and decoders know one type alone, whatever their tokenizers say.
  if (open.model->config().value("type_vocab_size", int64_t{1}) > 1) {
    at::Tensor types = at::zeros(texts.input_ids.sizes(), at::kLong);
    for (size_t b = 0; b < batch.size(); ++b)
      std::ranges::copy(batch[b]->encoding.type_ids, types[static_cast<int64_t>(b)].data_ptr<int64_t>());
    texts.token_type_ids = types.to(device);
  }
  std::vector<at::Tensor> rows = open.model->class_logits(texts).unbind(0);
  for (size_t b = 0; b < batch.size(); ++b) {
    at::Tensor& row = rows[b];
    if (open.model->head() == nn::Head::token_classification) {
      std::vector<int64_t> places = batch[b]->places;
      std::erase(places, -1);
      row = row.index_select(0, at::tensor(places, at::kLong).to(device));
    }
    row = row.to(at::kFloat).cpu().contiguous();
    if (!row.isfinite().all().item<bool>()) throw Error(Exit::diverged, {.what = "the model's logits are not finite"});
  }
  return rows;
}

/// The same of all rows, those of like length together.
std::vector<at::Tensor> logits_of(const OpenModel& open, std::span<const Example> rows, int64_t batch_size) {
  const c10::NoGradGuard no_gradients;
  std::vector<size_t> order(rows.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::ranges::greater(), [&](size_t i) { return rows[i].encoding.ids.size(); });
  std::vector<at::Tensor> result(rows.size());
  // Where a text's length moves its tokens' places, it may have none but its like beside it.
  const auto* decoder = dynamic_cast<const nn::DecoderClassifier*>(open.model.get());
  const size_t step = decoder && decoder->depends_on_length() ? 1 : static_cast<size_t>(batch_size);
  for (size_t begin = 0; begin < order.size(); begin += step) {
    const auto members = std::span(order).subspan(begin, std::min(step, order.size() - begin));
    std::vector<const Example*> batch;
    for (const size_t i : members) batch.push_back(&rows[i]);
    auto logits = logits_of(open, batch);
    for (size_t b = 0; b < members.size(); ++b) result[members[b]] = std::move(logits[b]);
  }
  return result;
}

std::vector<float> values_of(const at::Tensor& row) {
  return {row.const_data_ptr<float>(), row.const_data_ptr<float>() + row.numel()};
}

Json answer_of(Task task, size_t index, const Example& example, const at::Tensor& logits, double threshold) {
  switch (task) {
    case Task::single_label: {
      const auto probabilities = values_of(logits.softmax(-1));
      return {{"index", index},
              {"label", example.label},
              {"prediction", std::ranges::max_element(probabilities) - probabilities.begin()},
              {"probabilities", probabilities}};
    }
    case Task::multi_label: {
      const auto probabilities = values_of(logits.sigmoid());
      Json predictions = Json::array();
      for (size_t c = 0; c < probabilities.size(); ++c)
        if (static_cast<double>(probabilities[c]) > threshold) predictions.push_back(c);
      return {{"index", index},
              {"labels", example.label},
              {"predictions", std::move(predictions)},
              {"probabilities", probabilities}};
    }
    case Task::regression: {
      const auto values = values_of(logits);
      return {{"index", index},
              {"label", example.label},
              {"prediction", values.size() == 1 ? Json(values[0]) : Json(values)}};
    }
    case Task::tokens:
      break;
  }
  const at::Tensor best = logits.argmax(-1);  // [words]
  Json predictions = Json::array();
  int64_t next = 0;
  for (const int64_t place : example.places)
    predictions.push_back(place < 0 ? Json() : Json(best.const_data_ptr<int64_t>()[next++]));
  return {{"index", index}, {"labels", example.label}, {"predictions", std::move(predictions)}};
}

/// A line for each class or output, with what is known of it.
void print_each(const char* title, const Json& each) {
  std::vector<std::string> titles = {title};
  std::vector<size_t> right;
  for (const auto& [metric, value] : each.front().items()) {
    right.push_back(titles.size());
    titles.push_back(metric);
  }
  Table table(std::move(titles), std::move(right));
  for (const auto& [name, metrics] : each.items()) {
    std::vector<std::string> line = {one_line(name)};
    for (const Json& value : metrics) line.push_back(value.is_number_float() ? fixed(value, 6) : value.dump());
    table.add(std::move(line));
  }
  table.print();
}

void print_text(Json summary) {
  for (const auto& [key, title] : {std::pair("classes", "class"), std::pair("outputs", "output")})
    if (const auto each = summary.find(key); each != summary.end()) {
      if (!each->empty()) print_each(title, *each);
      summary.erase(key);
    }
  summary.erase("confusion");
  print_summary(summary);
}

int run_classify(ClassifyOptions& options, bool json) {
  const fs::path folder = io::find_model(options.eval.model.model);
  const OpenModel open = open_model(options.eval.model);
  const Task task = task_of(open, options);
  const auto names = open.model->label_names();
  const auto examples = read_examples(task, open, options, names);
  const auto counted = metrics::make_classification_metrics(task, names);
  Results results(options.eval.output, describe_run("classify", options.eval, folder, {options.file}),
                  [&](const Json& result) { counted->add(result); });
  in_blocks(results, examples.size(), kBlock * static_cast<size_t>(options.eval.batch_size), "row",
            [&](size_t begin, size_t end) {
              const auto logits =
                  logits_of(open, std::span(examples).subspan(begin, end - begin), options.eval.batch_size);
              for (size_t i = begin; i < end; ++i) {
                const Json result = answer_of(task, i, examples[i], logits[i - begin], options.threshold.value_or(0.5));
                counted->add(result);
                results.add(result);
              }
            });
  json ? print_json(counted->summary()) : print_text(counted->summary());
  return 0;
}

}  // namespace

void add_classify_command(CLI::App& app, EvalContext& context) {
  auto options = std::make_shared<ClassifyOptions>();
  auto& command =
      add_eval_command(app, context, "classify", "How often a classification head is right", options, run_classify);
  Settings& settings = options->eval.settings;
  command
      .add_option(
          "file", options->file,
          R"(JSON lines: {"text": ..., "label": 0}, with "text_pair" for pairs; {"tokens": [...], "tags": [...]})")
      ->required();
  settings.add(command, "--text-field", options->text_field, "The key of the text; default: text, of words tokens");
  settings.add(command, "--pair-field", options->pair_field,
               "The key of a second text, where a row has one; default: text_pair");
  settings.add(command, "--label-field", options->label_field,
               "The key of what is right: a class by number or name, a list of classes, a number, or a class for each "
               "word; default: label, of words tags");
  settings
      .add(command, "--problem-type", options->problem_type,
           "What the head was trained for; default: as config.json's problem_type and number of labels have it")
      ->check(CLI::IsMember({"single_label_classification", "multi_label_classification", "regression"}));
  settings
      .add(command, "--threshold", options->threshold,
           "Several labels: those more probable than this hold; default: 0.5")
      ->check(CLI::Range(0.0, 1.0));
  settings.add_flag(command, "--truncate", options->truncate, "Drop the end of texts that are too long for the model");
  command.footer(
      "Examples:\n  llmtk eval classify sentiment-bert reviews.jsonl --truncate\n"
      "  llmtk eval classify nli-bert pairs.jsonl --text-field premise --pair-field hypothesis --json\n"
      "  llmtk eval classify topics-bert news.jsonl --label-field topics --threshold 0.3\n"
      "  llmtk eval classify ner-bert people.jsonl --truncate");
}

}  // namespace llmtk
