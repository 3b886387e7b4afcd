#include "data/labels.h"

#include <algorithm>

#include "core/error.h"
#include "core/utf8.h"

namespace llmtk::data {
namespace {

using LabelJson = nlohmann::ordered_json;

constexpr const char* kProblemTypes[] = {"single_label_classification", "multi_label_classification", "regression"};

std::string label_shown(const LabelJson& label) { return std::string(cut_to_width(label.dump(), 60)); }

/// Names as text, numbers as such.
bool comes_before(const std::string& kind, const std::string& a, const std::string& b) {
  if (kind == "a whole number" && a.size() != b.size()) return a.size() < b.size();
  return a < b;
}

}  // namespace

ClassificationTask parse_problem_type(const std::string& name) {
  const auto* found = std::ranges::find(kProblemTypes, name);
  if (found == std::end(kProblemTypes))
    throw Error(Exit::usage, {.what = "unknown problem_type",
                              .got = "'" + name + "'",
                              .expected = "single_label_classification, multi_label_classification, regression"});
  return static_cast<ClassificationTask>(found - kProblemTypes);
}

std::string to_string(ClassificationTask task) {
  return task == ClassificationTask::tokens ? "token_classification" : kProblemTypes[static_cast<int>(task)];
}

ClassificationTask task_of_label(const LabelJson& label) {
  if (label.is_number_float()) return ClassificationTask::regression;
  if (!label.is_array()) return ClassificationTask::single_label;
  const auto fraction = [](const LabelJson& one) { return one.is_number_float() && one != 0.0 && one != 1.0; };
  return std::ranges::any_of(label, fraction) ? ClassificationTask::regression : ClassificationTask::multi_label;
}

bool is_truth_value(const LabelJson& label) { return label.is_boolean() || label.is_number_float(); }

// --- Classes ---

void Classes::wrong(const Json& label, const std::string& where, const std::string& expected) const {
  throw Error(Exit::data, {.what = "the label '" + key_ + "' cannot be used",
                           .where = where,
                           .got = label_shown(label),
                           .expected = expected});
}

size_t Classes::one(const Json& label, const std::string& where) const {
  if (label.is_number_integer() && label.get<int64_t>() >= 0 && label.get<size_t>() < names_.size())
    return label.get<size_t>();
  if (label.is_string())
    if (const auto found = std::ranges::find(names_, label.get<std::string>()); found != names_.end())
      return static_cast<size_t>(found - names_.begin());
  throw Error(Exit::data, {.what = "the label '" + key_ + "' is no class of the model",
                           .where = where,
                           .got = label_shown(label),
                           .expected = std::string(cut_to_width(Json(names_).dump(), 200)) + ", or a number below " +
                                       std::to_string(names_.size())});
}

std::vector<size_t> Classes::several(const Json& labels, const std::string& where) const {
  std::vector<size_t> chosen;
  if (!labels.is_array()) wrong(labels, where, "a list of classes");
  if (!labels.empty() && std::ranges::all_of(labels, is_truth_value)) {
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

Classes::Json Classes::quantities(const Json& label, const std::string& where) const {
  const Json list = label.is_array() ? label : Json::array({label});
  if (list.size() != names_.size() || !std::ranges::all_of(list, [](const Json& value) { return value.is_number(); }))
    wrong(label, where, names_.size() == 1 ? "a number" : std::to_string(names_.size()) + " numbers");
  return names_.size() == 1 ? list[0] : list;
}

// --- ClassCollector ---

int32_t ClassCollector::add(const Json& label, const std::string& where) {
  const bool number = label.is_number_integer() && (label.is_number_unsigned() || label.get<int64_t>() >= 0);
  const std::string kind = label.is_string()    ? "a name"
                           : number             ? "a whole number"
                           : label.is_boolean() ? "a truth value"
                                                : "";
  if (kind.empty() || (!kind_.empty() && kind != kind_))
    throw Error(Exit::data, {.what = "the label '" + key_ + "' cannot be used",
                             .where = where,
                             .got = label_shown(label),
                             .expected = kind_.empty() ? "a name, or a whole number of 0 or more"
                                                       : kind_ + ", as the labels before it",
                             .hint = label.is_number_float() ? "quantities want problem_type: regression" : ""});
  kind_ = kind;
  return found_
      .try_emplace(label.is_string() ? label.get<std::string>() : label.dump(), static_cast<int32_t>(found_.size()))
      .first->second;
}

std::vector<int32_t> ClassCollector::add_all(const Json& labels, const std::string& where) {
  const auto fail = [&](const char* expected, const char* hint = "") {
    throw Error(Exit::data, {.what = "the label '" + key_ + "' cannot be used",
                             .where = where,
                             .got = label_shown(labels),
                             .expected = expected,
                             .hint = hint});
  };
  if (!labels.is_array()) fail("a list of classes");
  if (!labels.empty() && std::ranges::all_of(labels, is_truth_value))
    fail("a list of classes", "write which classes hold, by name or number, not a truth value for each");
  std::vector<int32_t> found;
  for (const Json& label : labels) found.push_back(add(label, where));
  std::ranges::sort(found);
  if (std::ranges::adjacent_find(found) != found.end()) fail("each class once");
  return found;
}

std::vector<std::string> ClassCollector::names() const {
  std::vector<std::string> names;
  for (const auto& [name, number] : found_) names.push_back(name);
  std::ranges::sort(names, [&](const auto& a, const auto& b) { return comes_before(kind_, a, b); });
  return names;
}

std::vector<int32_t> ClassCollector::map() const {
  std::vector<int32_t> map(found_.size());
  const auto sorted = names();
  for (size_t c = 0; c < sorted.size(); ++c) map[static_cast<size_t>(found_.at(sorted[c]))] = static_cast<int32_t>(c);
  return map;
}

}  // namespace llmtk::data
