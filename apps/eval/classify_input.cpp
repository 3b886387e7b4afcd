#include "eval/classify_input.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"

namespace llmtk {
namespace {

constexpr const char* kTaskNames[] = {"single_label_classification", "multi_label_classification", "regression"};

void refuse(bool given, const char* flag, const char* because) {
  if (given) throw Error(Exit::usage, {.what = std::string(flag) + " has no effect " + because});
}

/// The numbers and names that stand for classes.
class Classes {
 public:
  Classes(const std::vector<std::string>& names, const std::string& key) : names_(names), key_(key) {}

  size_t one(const Json& label, const std::string& where) const {
    if (label.is_number_integer() && label.get<int64_t>() >= 0 && label.get<size_t>() < names_.size())
      return label.get<size_t>();
    if (label.is_string())
      if (const auto found = std::ranges::find(names_, label.get<std::string>()); found != names_.end())
        return static_cast<size_t>(found - names_.begin());
    throw Error(Exit::data, {.what = "the label '" + key_ + "' is no class of the model",
                             .where = where,
                             .got = std::string(cut_to_width(label.dump(), 60)),
                             .expected = std::string(cut_to_width(Json(names_).dump(), 200)) + ", or a number below " +
                                         std::to_string(names_.size())});
  }

  /// Classes by number or name, or for each class a fraction or a truth value.
  std::vector<size_t> several(const Json& labels, const std::string& where) const {
    const auto is_choice = [](const Json& label) { return label.is_boolean() || label.is_number_float(); };
    std::vector<size_t> chosen;
    if (!labels.is_array()) wrong(labels, where, "a list of classes");
    if (!labels.empty() && std::ranges::all_of(labels, is_choice)) {
      if (labels.size() != names_.size()) wrong(labels, where, std::to_string(names_.size()) + " of them");
      for (size_t c = 0; c < labels.size(); ++c) {
        if (labels[c] == 1.0 || labels[c] == true)
          chosen.push_back(c);
        else if (labels[c] != 0.0 && labels[c] != false)
          wrong(labels, where, "0.0 or 1.0 for each class");
      }
      return chosen;
    }
    for (const Json& label : labels) chosen.push_back(one(label, where));
    std::ranges::sort(chosen);
    if (std::ranges::adjacent_find(chosen) != chosen.end())
      wrong(labels, where, "each class once; for each class a truth value are 0.0 and 1.0, or false and true");
    return chosen;
  }

  /// A number for each label of the model; where it has one, the number itself.
  Json quantities(const Json& label, const std::string& where) const {
    const Json list = label.is_array() ? label : Json::array({label});
    if (list.size() != names_.size() || !std::ranges::all_of(list, [](const Json& value) { return value.is_number(); }))
      wrong(label, where, names_.size() == 1 ? "a number" : std::to_string(names_.size()) + " numbers");
    return names_.size() == 1 ? list[0] : list;
  }

 private:
  [[noreturn]] void wrong(const Json& label, const std::string& where, const std::string& expected) const {
    throw Error(Exit::data, {.what = "the label '" + key_ + "' cannot be used",
                             .where = where,
                             .got = std::string(cut_to_width(label.dump(), 60)),
                             .expected = expected});
  }

  const std::vector<std::string>& names_;
  const std::string& key_;
};

class ExampleReader {
 public:
  ExampleReader(Task task, const OpenEncoder& open, const ClassifyOptions& options,
                const std::vector<std::string>& names)
      : task_(task),
        open_(open),
        options_(options),
        pair_field_(options.pair_field.value_or("text_pair")),
        classes_(names, options.label_field) {}

  Example read(const Row& row) {
    Example example = task_ == Task::tokens ? read_words(row) : read_text(row);
    if (example.encoding.ids.empty()) throw Error(Exit::data, {.what = "a text without tokens", .where = row.where});
    check_ids(open_, example.encoding.ids, row.where);
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
    Example example{.encoding = fitted(std::move(ids), pair ? &*pair : nullptr, row.where)};
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
    std::vector<text::TokenId> ids;
    std::vector<size_t> ends;
    for (size_t w = 0; w < words.size(); ++w) {
      example.label.push_back(classes_.one(tags[w], row.where));
      const auto word = encode_text(*open_.tokenizer, words[w], false, row.where);
      example.places.push_back(word.empty() ? -1 : static_cast<int64_t>(ids.size()));
      ids.insert(ids.end(), word.begin(), word.end());
    }
    const auto before = options_.eval.add_special_tokens ? static_cast<int64_t>(open_.tokenizer->prefix().size()) : 0;
    const auto special =
        static_cast<int64_t>(open_.tokenizer->post_process({}, nullptr, options_.eval.add_special_tokens).ids.size());
    example.encoding = fitted(std::move(ids), nullptr, row.where);
    const int64_t seen = static_cast<int64_t>(example.encoding.ids.size()) - special;
    for (int64_t& place : example.places) {
      place = place < seen ? place : -1;
      unseen_ += place < 0;
      if (place >= 0) place += before;
    }
    return example;
  }

  text::Encoding fitted(std::vector<text::TokenId> ids, std::vector<text::TokenId>* pair, const std::string& where) {
    const auto most = static_cast<size_t>(open_.model->max_positions());
    const size_t texts = ids.size() + (pair ? pair->size() : 0);
    auto input = encoder_input(*open_.tokenizer, std::move(ids), pair, options_.eval.add_special_tokens, most);
    if (input.truncated && !options_.truncate)
      throw Error(Exit::data, {.what = "the row is longer than the model can see",
                               .where = where,
                               .got = std::to_string(texts) + " tokens and the special ones",
                               .expected = "at most " + std::to_string(most),
                               .hint = "--truncate drops the end of such texts"});
    truncated_ += input.truncated;
    return std::move(input.encoding);
  }

  Task task_;
  const OpenEncoder& open_;
  const ClassifyOptions& options_;
  std::string pair_field_;
  Classes classes_;
  int64_t truncated_ = 0, unseen_ = 0, pairs_ = 0;
};

}  // namespace

Task task_of(const OpenEncoder& open, ClassifyOptions& options) {
  const Json config = open.model->config();
  const auto labels = open.model->num_labels();
  const auto head = open.model->head();
  Task task = Task::tokens;
  if (head == nn::EncoderHead::token_classification) {
    refuse(!options.problem_type.empty(), "--problem-type", "on a model that classifies tokens");
    refuse(options.pair_field.has_value(), "--pair-field", "on a model that classifies tokens");
  } else {
    std::string problem = options.problem_type;
    if (const auto own = config.find("problem_type"); problem.empty() && own != config.end() && own->is_string())
      problem = own->get<std::string>();
    if (problem.empty()) problem = labels == 1 ? "regression" : "single_label_classification";
    const auto* name = std::ranges::find(kTaskNames, problem);
    const bool one_class = problem == kTaskNames[0] && labels < 2;
    if (head != nn::EncoderHead::sequence_classification || name == std::end(kTaskNames) || one_class)
      throw Error(Exit::usage, {.what = "the model does not classify",
                                .where = open.folder.string(),
                                .got = config.value("architectures", Json()).dump() + ", " + std::to_string(labels) +
                                       " labels, " + problem,
                                .expected = "sequence or token classification; at least two labels where one is to be "
                                            "chosen"});
    task = static_cast<Task>(name - kTaskNames);
  }
  if (options.text_field.empty()) options.text_field = task == Task::tokens ? "tokens" : "text";
  if (options.label_field.empty()) options.label_field = task == Task::tokens ? "tags" : "label";
  refuse(options.threshold && task != Task::multi_label, "--threshold", "where a text has not several labels");
  return task;
}

std::vector<Example> read_examples(Task task, const OpenEncoder& open, const ClassifyOptions& options,
                                   const std::vector<std::string>& names) {
  ExampleReader reader(task, open, options, names);
  std::vector<Example> examples;
  for (const Row& row : read_rows(options.file)) examples.push_back(reader.read(row));
  reader.finish();
  return examples;
}

}  // namespace llmtk
