#include "config/config.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/file.h"
#include "test.h"

using namespace llmtk;

namespace {

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

const std::string kData = "data: {sources: [{path: a.txt}]}\n";

Config read(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  return config::parse<Config>(yaml, "x.yaml", overrides);
}

std::string message(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  try {
    read(yaml, overrides);
  } catch (const Error& e) {
    CHECK(e.exit() == Exit::usage);
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a config is read over its defaults") {
  const Config c = read("optimizer:\n  learning_rate: 1e-4\n" + kData + "max_steps: 1_000\n");
  CHECK(c.optimizer.learning_rate == 1e-4);
  CHECK(c.optimizer.betas == std::vector{0.9, 0.95});
  CHECK(c.data.sources == std::vector{Source{"a.txt", 1.0}});
  CHECK(c.max_steps == 1000);
}

TEST_CASE("an unknown key names the nearest") {
  CHECK(message("optimizer:\n  learning_rte: 1\n" + kData) ==
        "x.yaml:2:3: unknown key 'learning_rte' in 'optimizer' (did you mean 'learning_rate'?)");
  CHECK(message("learning_rate: 1\n" + kData) ==
        "x.yaml:1:1: unknown key 'learning_rate' (it belongs under 'optimizer')");
}
