#include "data/row_labels.h"

#include <algorithm>

namespace llmtk::data {

void RowLabels::see_first(const Fields& row, bool of_table) {
  const bool words = context_.objective == Objective::token_classification;
  if (task_ || (!words && context_.objective != Objective::sequence_classification)) return;
  if (words) {
    task_ = ClassificationTask::tokens;
    return start(row.name_of("tags"));
  }
  const auto label = of_table ? number_in(row.need("label")) : row.need("label");
  const std::string given = config_.problem_type != "auto" ? config_.problem_type : context_.problem_type;
  task_ = !given.empty()                     ? parse_problem_type(given)
          : context_.label_names.size() == 1 ? ClassificationTask::regression
                                             : task_of_label(label);
  // What has neither names nor numbers of its own: quantities, and a truth value for each class.
  const bool nameless = task_ == ClassificationTask::regression ||
                        (task_ == ClassificationTask::multi_label && label.is_array() && !label.empty() &&
                         std::ranges::all_of(label, is_truth_value));
  if (!nameless || !context_.label_names.empty()) return start(row.name_of("label"));
  std::vector<std::string> names;
  for (size_t i = 0; i < (label.is_array() ? label.size() : 1); ++i) names.push_back("LABEL_" + std::to_string(i));
  classes_.emplace(std::move(names), row.name_of("label"));
}

void RowLabels::start(const std::string& key) {
  if (context_.label_names.empty())
    collector_.emplace(key);
  else
    classes_.emplace(context_.label_names, key);
}

LabelKind RowLabels::kind() const {
  if (context_.objective == Objective::causal_lm) return LabelKind::next;
  if (is_preference(context_.objective)) return LabelKind::answers;
  return task_ == ClassificationTask::multi_label ? LabelKind::set : LabelKind::own;
}

int32_t RowLabels::class_of(const nlohmann::ordered_json& label, const std::string& where) {
  return collector_ ? collector_->add(label, where) : static_cast<int32_t>(classes_->one(label, where));
}

void RowLabels::assign(Draft& draft, const std::string& where) {
  if (!task_) return;
  EncodedRow& row = draft.row;
  switch (*task_) {
    case ClassificationTask::tokens:
      row.labels.assign(row.ids.size(), kIgnore);
      for (size_t w = 0; w < draft.places.size(); ++w) {
        const int32_t found = class_of(draft.label[w], where);
        if (draft.places[w] >= 0) row.labels[static_cast<size_t>(draft.places[w])] = found;
      }
      break;
    case ClassificationTask::single_label:
      row.labels = {class_of(draft.label, where)};
      break;
    case ClassificationTask::regression: {
      const auto numbers = classes_->quantities(draft.label, where);
      row.values = numbers.is_array() ? numbers.get<std::vector<float>>() : std::vector{numbers.get<float>()};
      break;
    }
    case ClassificationTask::multi_label:
      if (classes_) {
        for (const size_t one : classes_->several(draft.label, where)) row.labels.push_back(static_cast<int32_t>(one));
      } else {
        row.labels = collector_->add_all(draft.label, where);
      }
      break;
  }
}

std::optional<std::vector<int32_t>> RowLabels::finish(const std::string& where) {
  if (!collector_) return std::nullopt;
  const auto map = collector_->map();
  classes_.emplace(collector_->names(), collector_->key());
  collector_.reset();
  if (names().size() < 2 && task_ != ClassificationTask::multi_label)
    throw Error(Exit::data, {.what = "all rows have the same label",
                             .where = where,
                             .got = names().empty() ? "" : "'" + names()[0] + "'",
                             .expected = "two classes at least"});
  return map;
}

const std::vector<std::string>& RowLabels::names() const {
  static const std::vector<std::string> kNone;
  return classes_ ? classes_->names() : kNone;
}

}  // namespace llmtk::data
