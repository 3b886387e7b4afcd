#pragma once
// Figures beside the loss, whose means a run reports. No LibTorch here.

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

namespace llmtk::train {

/// Sums of figures over whatever each is a mean of: rows, tokens, batches. On several ranks all have the same names.
class MetricSums {
 public:
  void add(const std::string& name, double sum, double weight) {
    auto& [all, count] = sums_[name];
    all += sum;
    count += weight;
  }
  void add(const MetricSums& other) {
    for (const auto& [name, sum] : other.sums_) add(name, sum.first, sum.second);
  }
  void clear() { sums_.clear(); }
  bool empty() const { return sums_.empty(); }
  /// {name: mean}, of those that have any weight.
  nlohmann::ordered_json means() const {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    for (const auto& [name, sum] : sums_)
      if (sum.second > 0) json[name] = sum.first / sum.second;
    return json;
  }
  /// By name, {sum, weight}.
  std::map<std::string, std::pair<double, double>>& all() { return sums_; }
  const std::map<std::string, std::pair<double, double>>& all() const { return sums_; }

 private:
  std::map<std::string, std::pair<double, double>> sums_;
};

}  // namespace llmtk::train
