#include "eval/classify_input.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "data/encoder_input.h"

namespace llmtk {
namespace {

void refuse(bool given, const char* flag, const char* because) {
  if (given) throw Error(Exit::usage, {.what = std::string(flag) + " has no effect " + because});
}

class ExampleReader {
 public:
  ExampleReader(Task task, const OpenModel& open, const ClassifyOptions& options, const std::vector<std::string>& names)
      : task_(task),
        open_(open),
        options_(options),
        pair_field_(options.pair_field.value_or("text_pair")),
        classes_(names, options.label_field) {}

  Example read(const Row& row) {
    Example example = task_ == Task::tokens ? read_words(row) : read_text(row);
    if (example.encoding.ids.empty()) throw Error(Exit::data, {.what = "a text without tokens", .where = row.where});
    check_ids(*open_.model, example.encoding.ids, row.where);
    return example;
  }

  /// Warns of what was cut. Throws Error(data) where --pair-field is a key of no row.
  void finish() const {
    if (options_.pair_field && pairs_ == 0)
      throw Error(Exit::data, {.what = "no row has a second text",
                               .where = options_.file,
                               .expected = "the key '" + pair_field_ + "', as --pair-field says"});
    if (truncated_ > 0) log::warn(std::to_string(truncated_) + " texts are too long: their end was dropped");
    if (unseen_ > 0)
      log::warn(std::to_string(unseen_) + " words do not count: they were cut away, or have no token of their own");
  }

 private:
  Example read_text(const Row& row) {
    auto ids = encode_text(*open_.tokenizer, text_field_of(row, options_.text_field), false, row.where);
    std::optional<std::vector<text::TokenId>> pair;
    const bool has_pair = row.json.contains(pair_field_);
    pairs_ += has_pair;
    if (has_pair) pair = encode_text(*open_.tokenizer, text_field_of(row, pair_field_), false, row.where);
    const size_t tokens = ids.size() + (pair ? pair->size() : 0);
    Example example{.encoding = fitted(data::encoder_input(*open_.tokenizer, std::move(ids), pair ? &*pair : nullptr,
                                                           options_.eval.add_special_tokens, most()),
                                       tokens, row.where)};
    const Json label = row.json.value(options_.label_field, Json());
    switch (task_) {
      case Task::multi_label:
        example.label = classes_.several(label, row.where);
        break;
      case Task::regression:
        example.label = classes_.quantities(label, row.where);
        break;
      default:
        example.label = classes_.one(label, row.where);
    }
    return example;
  }

  /// Each word by itself; what stands for it is its first token.
  Example read_words(const Row& row) {
    const Json words = row.json.value(options_.text_field, Json()), tags = row.json.value(options_.label_field, Json());
    const auto is_text = [](const Json& word) { return word.is_string(); };
    if (!words.is_array() || words.empty() || !std::ranges::all_of(words, is_text))
      throw Error(Exit::data, {.what = "a row without the words '" + options_.text_field + "'",
                               .where = row.where,
                               .got = std::string(cut_to_width(words.dump(), 60)),
                               .expected = "a list of texts"});
    if (!tags.is_array() || tags.size() != words.size())
      throw Error(Exit::data, {.what = "not as many tags '" + options_.label_field + "' as words",
                               .where = row.where,
                               .got = tags.is_array() ? std::to_string(tags.size()) : tags.dump(),
                               .expected = std::to_string(words.size())});
    Example example{.label = Json::array()};
    std::vector<std::vector<text::TokenId>> ids;
    for (size_t w = 0; w < words.size(); ++w) {
      example.label.push_back(classes_.one(tags[w], row.where));
      ids.push_back(encode_text(*open_.tokenizer, words[w], false, row.where));
    }
    auto found = data::encoder_input(*open_.tokenizer, ids, options_.eval.add_special_tokens, most());
    example.encoding = fitted(std::move(found.input), text_size(ids), row.where);
    example.places = std::move(found.places);
    unseen_ += std::ranges::count(example.places, -1);
    return example;
  }

  size_t most() const { return static_cast<size_t>(open_.model->max_positions()); }

  static size_t text_size(const std::vector<std::vector<text::TokenId>>& texts) {
    size_t sum = 0;
    for (const auto& text : texts) sum += text.size();
    return sum;
  }

  text::Encoding fitted(data::EncoderInput input, size_t tokens, const std::string& where) {
    if (input.truncated && !options_.truncate)
      throw Error(Exit::data, {.what = "the row is longer than the model can see",
                               .where = where,
                               .got = std::to_string(tokens) + " tokens and the special ones",
                               .expected = "at most " + std::to_string(most()),
                               .hint = "--truncate drops the end of such texts"});
    truncated_ += input.truncated;
    return std::move(input.encoding);
  }

  Task task_;
  const OpenModel& open_;
  const ClassifyOptions& options_;
  std::string pair_field_;
  data::Classes classes_;
  int64_t truncated_ = 0, unseen_ = 0, pairs_ = 0;
};

}  // namespace

Task task_of(const OpenModel& open, ClassifyOptions& options) {
  const Json config = open.model->config();
  const auto labels = open.model->num_labels();
  const auto head = open.model->head();
  Task task = Task::tokens;
  if (head == nn::Head::token_classification) {
    refuse(!options.problem_type.empty(), "--problem-type", "on a model that classifies tokens");
    refuse(options.pair_field.has_value(), "--pair-field", "on a model that classifies tokens");
  } else {
    std::string problem = options.problem_type;
    if (const auto own = config.find("problem_type"); problem.empty() && own != config.end() && own->is_string())
      problem = own->get<std::string>();
    if (problem.empty()) problem = labels == 1 ? "regression" : "single_label_classification";
    const bool one_class = problem == to_string(Task::single_label) && labels < 2;
    const auto named = [&](Task each) { return problem == to_string(each); };
    const Task tasks[] = {Task::single_label, Task::multi_label, Task::regression};
    if (head != nn::Head::sequence_classification || std::ranges::none_of(tasks, named) || one_class)
      throw Error(Exit::usage, {.what = "the model does not classify",
                                .where = open.folder.string(),
                                .got = config.value("architectures", Json()).dump() + ", " + std::to_string(labels) +
                                       " labels, " + problem,
                                .expected = "sequence or token classification; at least two labels where one is to be "
                                            "chosen"});
    task = data::parse_problem_type(problem);
  }
  if (options.text_field.empty()) options.text_field = task == Task::tokens ? "tokens" : "text";
  if (options.label_field.empty()) options.label_field = task == Task::tokens ? "tags" : "label";
  refuse(options.threshold && task != Task::multi_label, "--threshold", "where a text has not several labels");
  return task;
}

std::vector<Example> read_examples(Task task, const OpenModel& open, const ClassifyOptions& options,
                                   const std::vector<std::string>& names) {
  ExampleReader reader(task, open, options, names);
  std::vector<Example> examples;
  for (const Row& row : read_rows(options.file)) examples.push_back(reader.read(row));
  reader.finish();
  return examples;
}

}  // namespace llmtk
