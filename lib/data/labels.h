#pragma once
// The labels of classification: names and numbers in rows, classes in a model.

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace llmtk::data {

/// What a classification head is trained for.
enum class ClassificationTask {
  single_label,  ///< one class of several
  multi_label,   ///< any number of them
  regression,    ///< numbers
  tokens,        ///< a class for each word
};
/// config.json's problem_type of the first three: "single_label_classification", "multi_label_classification",
/// "regression". Throws Error(usage).
ClassificationTask parse_problem_type(const std::string& name);
std::string to_string(ClassificationTask task);
/// What a label looks like: a list of 0.0 and 1.0, or of names or whole numbers, is several labels, other fractions are
/// quantities, a name, a whole number or a truth value is one label.
ClassificationTask task_of_label(const nlohmann::ordered_json& label);

/// Whether a class holds: a fraction, or true or false.
bool is_truth_value(const nlohmann::ordered_json& label);

/// What labels stand for where the classes are known.
class Classes {
 public:
  using Json = nlohmann::ordered_json;
  /// key: the rows' key, for messages.
  Classes(std::vector<std::string> names, std::string key) : names_(std::move(names)), key_(std::move(key)) {}

  const std::vector<std::string>& names() const { return names_; }
  /// A class by number or name. Throws Error(data) naming `where`, as all of these.
  size_t one(const Json& label, const std::string& where) const;
  /// Classes by number or name, or for each class a fraction or a truth value; in rising order.
  std::vector<size_t> several(const Json& labels, const std::string& where) const;
  /// A number for each label of the model; where it has one, the number itself.
  Json quantities(const Json& label, const std::string& where) const;

 private:
  [[noreturn]] void wrong(const Json& label, const std::string& where, const std::string& expected) const;

  std::vector<std::string> names_;
  std::string key_;
};

/// Finds out the classes of a data set. A label is a name, a whole number of 0 or more, or a truth value; of one kind.
class ClassCollector {
 public:
  using Json = nlohmann::ordered_json;
  explicit ClassCollector(std::string key) : key_(std::move(key)) {}

  /// A number for this label, the same each time: in the order in which labels are met. Throws Error(data) naming
  /// `where` for what is no label, or of another kind than those before.
  int32_t add(const Json& label, const std::string& where);
  /// Of a list of them, each once; an empty one, too.
  std::vector<int32_t> add_all(const Json& labels, const std::string& where);
  /// The classes: names in the order of their bytes, numbers and truth values by value (as Hugging Face's run_ner and
  /// run_classification sort them).
  std::vector<std::string> names() const;
  const std::string& key() const { return key_; }
  /// Class of each number that add() gave.
  std::vector<int32_t> map() const;

 private:
  std::string key_;
  std::string kind_;
  std::map<std::string, int32_t> found_;
};

}  // namespace llmtk::data
