#pragma once
// How right a classifier is: accuracy, precision, recall and F1 (macro and micro), correlations, F1 of entities. Names
// and edge cases are those of scikit-learn, scipy and seqeval: a share of nothing is 0, a correlation with what never
// changes is null.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/labels.h"

namespace llmtk::metrics {

using Json = nlohmann::ordered_json;

class ClassificationMetrics {
 public:
  virtual ~ClassificationMetrics() = default;
  /// {"label", "prediction"} of one class or of quantities; {"labels", "predictions"} of several classes, or of a class
  /// for each word (null: not seen). Throws Json::exception or std::out_of_range for what is none.
  virtual void add(const Json& result) = 0;
  /// {metric: number, ..., "rows": n}; "classes" or "outputs" hold the same of each.
  virtual Json summary() const = 0;
};

/// names: of the model's labels. Words whose labels are of the form B-PER are counted as entities, too.
std::unique_ptr<ClassificationMetrics> make_classification_metrics(data::ClassificationTask task,
                                                                   const std::vector<std::string>& names);

}  // namespace llmtk::metrics
