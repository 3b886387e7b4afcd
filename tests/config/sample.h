#pragma once
// A config with a member of every kind.

#include "config/config.h"

namespace llmtk::test {

struct Source {
  std::string path;
  double weight = 1.0;
  template <class V>
  void fields(V& v) {
    v("path", path, "A text file", config::required, config::not_empty);
    v("weight", weight, "Its share of the mixture", config::above(0));
  }
  bool operator==(const Source&) const = default;
};

struct OptimizerConfig {
  double learning_rate = 3e-4;
  std::vector<double> betas = {0.9, 0.95};
  std::string type = "adamw";
  template <class V>
  void fields(V& v) {
    v("learning_rate", learning_rate, "Peak learning rate", config::above(0.0));
    v("betas", betas, "Adam's decay rates of the two moments", config::count(2), config::at_least(0), config::below(1));
    v("type", type, "Optimizer", config::one_of({"adamw", "sgd"}));
  }
  void validate(config::Problems& problems) const {
    if (betas[0] > betas[1])
      problems.add("betas", {.what = "the first is above the second", .hint = "they may be swapped"});
  }
  bool operator==(const OptimizerConfig&) const = default;
};

struct DataConfig {
  std::vector<Source> sources;
  std::map<std::string, int64_t> limits;
  std::optional<std::string> cache;
  template <class V>
  void fields(V& v) {
    v("sources", sources, "What is read", config::required, config::not_empty);
    v("limits", limits, "Rows per name");
    v("cache", cache, "Folder for shards");
  }
  bool operator==(const DataConfig&) const = default;
};

struct Config {
  OptimizerConfig optimizer;
  DataConfig data;
  int64_t max_steps = 100;
  bool packing = false;
  std::string name = "run";
  std::optional<double> dropout;
  template <class V>
  void fields(V& v) {
    v("optimizer", optimizer, "How weights move");
    v("data", data, "What is learned");
    v("max_steps", max_steps, "Optimizer steps", config::at_least(1));
    v("packing", packing, "Fill rows");
    v("name", name, "The run's name");
    v("dropout", dropout, "Dropout", config::at_least(0), config::below(1));
  }
  bool operator==(const Config&) const = default;
};

}  // namespace llmtk::test
