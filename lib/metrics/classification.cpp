#include "metrics/classification.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "metrics/entities.h"

namespace llmtk::metrics {
namespace {

double share(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

/// How often something was the truth, the answer, and both.
struct Counts {
  int64_t right = 0, answered = 0, support = 0;

  void operator+=(const Counts& other) {
    right += other.right;
    answered += other.answered;
    support += other.support;
  }
  double precision() const { return share(static_cast<double>(right), static_cast<double>(answered)); }
  double recall() const { return share(static_cast<double>(right), static_cast<double>(support)); }
  double f1() const { return share(2 * static_cast<double>(right), static_cast<double>(answered + support)); }
  Json json() const { return {{"precision", precision()}, {"recall", recall()}, {"f1", f1()}, {"support", support}}; }
};

/// How often class i (rows) was taken for class j (columns).
class Confusion final : public ClassificationMetrics {
 public:
  explicit Confusion(std::vector<std::string> names)
      : names_(std::move(names)), counts_(names_.size(), std::vector<int64_t>(names_.size())) {}

  void add(const Json& result) override {
    add(result.at("label").get<size_t>(), result.at("prediction").get<size_t>());
  }
  void add(size_t label, size_t prediction) { ++counts_.at(label).at(prediction); }

  Json summary() const override {
    const size_t n = names_.size();
    Json classes = Json::object();
    Counts all;
    double f1_sum = 0, taken_and_true = 0, taken_squared = 0, true_squared = 0;
    for (size_t i = 0; i < n; ++i) {
      Counts counts{.right = counts_[i][i]};
      for (size_t j = 0; j < n; ++j) {
        counts.answered += counts_[j][i];
        counts.support += counts_[i][j];
      }
      classes[names_[i]] = counts.json();
      all += counts;
      f1_sum += counts.f1();
      const auto s = static_cast<double>(counts.support), t = static_cast<double>(counts.answered);
      taken_and_true += s * t;
      taken_squared += t * t;
      true_squared += s * s;
    }
    // Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).
    const auto N = static_cast<double>(all.support), spread = (N * N - taken_squared) * (N * N - true_squared);
    const double correlation = static_cast<double>(all.right) * N - taken_and_true;
    return {{"accuracy", all.recall()},
            {"macro_f1", f1_sum / static_cast<double>(n)},
            {"matthews_correlation", spread > 0 ? correlation / std::sqrt(spread) : 0.0},
            {"rows", all.support},
            {"classes", std::move(classes)},
            {"confusion", counts_}};
  }

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<int64_t>> counts_;
};

class SeveralLabels final : public ClassificationMetrics {
 public:
  explicit SeveralLabels(std::vector<std::string> names) : names_(std::move(names)), counts_(names_.size()) {}

  void add(const Json& result) override {
    const auto labels = result.at("labels").get<std::vector<size_t>>();
    const auto predictions = result.at("predictions").get<std::vector<size_t>>();
    for (const size_t c : labels) ++counts_.at(c).support;
    for (const size_t c : predictions) {
      ++counts_.at(c).answered;
      counts_[c].right += std::ranges::find(labels, c) != labels.end();
    }
    ++rows_;
    same_ += labels == predictions;
  }

  Json summary() const override {
    Json classes = Json::object();
    Counts all;
    double f1_sum = 0;
    for (size_t c = 0; c < names_.size(); ++c) {
      classes[names_[c]] = counts_[c].json();
      all += counts_[c];
      f1_sum += counts_[c].f1();
    }
    const auto wrong = static_cast<double>(all.support + all.answered - 2 * all.right);
    const auto cells = static_cast<double>(rows_) * static_cast<double>(names_.size());
    return {{"subset_accuracy", share(static_cast<double>(same_), static_cast<double>(rows_))},
            {"micro_precision", all.precision()},
            {"micro_recall", all.recall()},
            {"micro_f1", all.f1()},
            {"macro_f1", f1_sum / static_cast<double>(names_.size())},
            {"hamming_loss", share(wrong, cells)},
            {"rows", rows_},
            {"classes", std::move(classes)}};
  }

 private:
  std::vector<std::string> names_;
  std::vector<Counts> counts_;
  int64_t rows_ = 0, same_ = 0;
};

/// Pearson's correlation; null where one side never changes.
Json correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const auto mean = [](const std::vector<double>& v) {
    return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
  };
  const double mean_x = mean(x), mean_y = mean(y);
  double xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double dx = x[i] - mean_x, dy = y[i] - mean_y;
    xx += dx * dx;
    yy += dy * dy;
    xy += dx * dy;
  }
  if (xx == 0 || yy == 0) return {};
  return std::clamp(xy / (std::sqrt(xx) * std::sqrt(yy)), -1.0, 1.0);
}

/// Places in rising order, from 1; equal values share the mean of theirs.
std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return values[i]; });
  std::vector<double> found(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) found[order[i]] = 0.5 * static_cast<double>(begin + end + 1);
  }
  return found;
}

class Regression final : public ClassificationMetrics {
 public:
  explicit Regression(std::vector<std::string> names) : names_(std::move(names)), values_(names_.size()) {}

  void add(const Json& result) override {
    const auto list = [&](const char* key) {
      const Json& value = result.at(key);
      auto numbers = value.is_array() ? value.get<std::vector<double>>() : std::vector{value.get<double>()};
      if (numbers.size() != names_.size()) throw std::out_of_range(key);
      return numbers;
    };
    const auto labels = list("label"), predictions = list("prediction");
    for (size_t i = 0; i < names_.size(); ++i) {
      values_[i].labels.push_back(labels[i]);
      values_[i].predictions.push_back(predictions[i]);
    }
  }

  Json summary() const override {
    Json outputs = Json::object();
    for (size_t i = 0; i < names_.size(); ++i) outputs[names_[i]] = values_[i].summary();
    Json all = outputs[names_[0]];
    if (names_.size() > 1)
      for (auto& [metric, value] : all.items()) value = mean(outputs, metric);
    all["rows"] = values_[0].labels.size();
    if (names_.size() > 1) all["outputs"] = std::move(outputs);
    return all;
  }

 private:
  struct Values {
    std::vector<double> labels, predictions;

    Json summary() const {
      double squares = 0, absolutes = 0;
      for (size_t i = 0; i < labels.size(); ++i) {
        const double error = predictions[i] - labels[i];
        squares += error * error;
        absolutes += std::abs(error);
      }
      const auto n = static_cast<double>(labels.size());
      return {{"mse", squares / n},
              {"mae", absolutes / n},
              {"pearson", correlation(labels, predictions)},
              {"spearman", correlation(ranks(labels), ranks(predictions))}};
    }
  };

  static Json mean(const Json& outputs, const std::string& metric) {
    double sum = 0;
    for (const Json& output : outputs) {
      if (output[metric].is_null()) return {};
      sum += output[metric].get<double>();
    }
    return sum / static_cast<double>(outputs.size());
  }

  std::vector<std::string> names_;
  std::vector<Values> values_;
};

class Words final : public ClassificationMetrics {
 public:
  explicit Words(const std::vector<std::string>& names)
      : names_(names), spell_entities_(std::ranges::any_of(names, is_chunk_tag)), confusion_(names) {}

  void add(const Json& result) override {
    const Json &labels = result.at("labels"), &predictions = result.at("predictions");
    if (labels.size() != predictions.size()) throw std::out_of_range("predictions");
    std::vector<std::string> true_tags, answered_tags;
    for (size_t w = 0; w < labels.size(); ++w) {
      if (predictions[w].is_null()) continue;
      const auto label = labels[w].get<size_t>(), prediction = predictions[w].get<size_t>();
      confusion_.add(label, prediction);
      true_tags.push_back(names_.at(label));
      answered_tags.push_back(names_.at(prediction));
    }
    ++rows_;
    if (!spell_entities_) return;
    const auto expected = entities(true_tags), answered = entities(answered_tags);
    for (const Entity& entity : expected) ++types_[entity.type].support;
    for (const Entity& entity : answered) {
      Counts& counts = types_[entity.type];
      ++counts.answered;
      counts.right += std::ranges::find(expected, entity) != expected.end();
    }
  }

  Json summary() const override {
    Json words = confusion_.summary();
    words["words"] = std::exchange(words["rows"], rows_);
    if (!spell_entities_) return words;
    Json classes = Json::object();
    Counts all;
    double f1_sum = 0;
    for (const auto& [type, counts] : types_) {
      classes[type] = counts.json();
      all += counts;
      f1_sum += counts.f1();
    }
    return {{"accuracy", words["accuracy"]},
            {"precision", all.precision()},
            {"recall", all.recall()},
            {"f1", all.f1()},
            {"macro_f1", share(f1_sum, static_cast<double>(types_.size()))},
            {"entities", all.support},
            {"rows", rows_},
            {"words", words["words"]},
            {"classes", std::move(classes)}};
  }

 private:
  std::vector<std::string> names_;
  bool spell_entities_;
  Confusion confusion_;
  std::map<std::string, Counts> types_;
  int64_t rows_ = 0;
};

}  // namespace

std::unique_ptr<ClassificationMetrics> make_classification_metrics(data::ClassificationTask task,
                                                                   const std::vector<std::string>& names) {
  using data::ClassificationTask;
  switch (task) {
    case ClassificationTask::single_label:
      return std::make_unique<Confusion>(names);
    case ClassificationTask::multi_label:
      return std::make_unique<SeveralLabels>(names);
    case ClassificationTask::regression:
      return std::make_unique<Regression>(names);
    case ClassificationTask::tokens:
      break;
  }
  return std::make_unique<Words>(names);
}

}  // namespace llmtk::metrics
