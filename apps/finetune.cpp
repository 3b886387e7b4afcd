// llmtk finetune: a model learns a task, whole or in part.

#include <algorithm>

#include "core/error.h"
#include "core/suggest.h"
#include "finetuning.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "peft/targets.h"

namespace fs = std::filesystem;
using namespace llmtk;

namespace {

constexpr const char* kExamples =
    "  llmtk finetune configs/finetune/sst2-minilm.yaml\n"
    "  llmtk finetune my.yaml optimizer.learning_rate=2e-5 trainer.num_train_epochs=2\n"
    "  llmtk finetune my.yaml --dry-run                            checks config, data, memory and disk\n"
    "  llmtk finetune my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk finetune --config-help                                every key, its default and what it does\n";

/// Which parameters learn, and how fast.
struct ParametersConfig {
  std::vector<std::string> frozen;
  std::map<std::string, double> learning_rates;

  template <class V>
  void fields(V& v) {
    v("frozen", frozen, "Parameters that stay as they are: regular expressions for whole names, as 'bert\\.embeddings\\..*'");
    v("learning_rates", learning_rates,
      "Parameters that learn at a peak rate of their own, by regular expressions for whole names; the first that "
      "matches, in alphabetical order, counts",
      config::above(0));
  }
};

struct FinetuneConfig : FinetuneSections {
  ParametersConfig parameters;

  template <class V>
  void fields(V& v) {
    FinetuneSections::fields(v);
    v("parameters", parameters, "Which parameters learn, and how fast");
  }
};

/// All parameters but those that are frozen.
class FullMethod final : public Method {
 public:
  explicit FullMethod(ParametersConfig config) : config_(std::move(config)) {}

  void apply(nn::Model& model, uint64_t) override {
    model_ = &model;
    rates_.clear();
    for (const auto& expression : config_.frozen)
      for_each_match(expression, "parameters.frozen", [](const std::string&, at::Tensor parameter) {
        parameter.requires_grad_(false);
      });
    for (const auto& [expression, rate] : config_.learning_rates)
      for_each_match(expression, "parameters.learning_rates", [&, rate = rate](const std::string& name, const at::Tensor&) {
        rates_.emplace(name, rate);
      });
  }
  bool is_full() const override { return true; }
  void save(const fs::path& folder, const fs::path& base) const override {
    models::save(*model_, folder, {.companions = base.empty() ? std::nullopt : std::optional(base)});
  }
  void load(const fs::path& folder) override {
    models::load_weights(*model_, io::WeightFiles(folder), folder.string());
  }
  train::LearningRates learning_rates(double) const override { return rates_; }

 private:
  template <class Visit>
  void for_each_match(const std::string& expression, const std::string& key, Visit&& visit) const {
    const peft::Pattern pattern(expression);
    std::vector<std::string> names;
    bool any = false;
    for (const auto& parameter : model_->named_parameters()) {
      names.push_back(parameter.key());
      if (!pattern.matches(parameter.key())) continue;
      any = true;
      visit(parameter.key(), parameter.value());
    }
    if (any) return;
    const std::string near = nearest(expression, names);
    throw Error(Exit::usage, {.what = "an expression in " + key + " matches no parameter",
                              .got = "'" + expression + "'",
                              .expected = "the names of the model, as " + names.front(),
                              .hint = near.empty() ? "llmtk inspect MODEL lists them" : "did you mean '" + near + "'?"});
  }

  ParametersConfig config_;
  nn::Model* model_ = nullptr;
  train::LearningRates rates_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Fine-tunes a model: texts, instructions and chats, pairs, classes of texts and of words.",
               "llmtk finetune");
  CommonOptions common;
  TrainingOptions options;
  add_training_options(app, options);
  add_common_options(app, common, kExamples);
  return run_app(app, common, argc, argv, [&] {
    return training_main<FinetuneConfig>(options, common, "llmtk finetune", [](FinetuneConfig config, auto places) {
      auto method = std::make_unique<FullMethod>(config.parameters);
      auto text = as_text(config);
      return make_finetuning(std::move(config), std::move(text), std::move(places), std::move(method));
    });
  });
}
