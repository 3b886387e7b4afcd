// llmtk finetune: a model learns a task, whole or by a method that trains little beside it.

#include <algorithm>

#include "core/error.h"
#include "core/suggest.h"
#include "finetuning.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "peft/bottleneck.h"
#include "peft/ia3.h"
#include "peft/prefix.h"
#include "peft/prompt.h"
#include "peft/prompt_files.h"
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
  std::optional<ParametersConfig> parameters;
  std::optional<peft::BottleneckConfig> adapter;
  std::optional<peft::PrefixTuningConfig> prefix_tuning;
  std::optional<peft::PTuningV2Config> p_tuning_v2;
  std::optional<peft::PromptTuningConfig> prompt_tuning;
  std::optional<peft::Ia3Config> ia3;

  template <class V>
  void fields(V& v) {
    FinetuneSections::fields(v);
    v("parameters", parameters, "Full fine-tuning: which parameters learn, and how fast");
    v("adapter", adapter, "Adapter tuning: small networks behind attention and feed-forward, the rest frozen");
    v("prefix_tuning", prefix_tuning, "Prefix tuning: learned keys and values before every text");
    v("p_tuning_v2", p_tuning_v2, "P-tuning v2: the same without a network that makes them");
    v("prompt_tuning", prompt_tuning, "Prompt tuning: learned embeddings before every text");
    v("ia3", ia3, "(IA)^3: learned scales of keys, values and feed-forwards");
  }
  void validate(config::Problems& problems) const {
    FinetuneSections::validate(problems);
    std::vector<std::string> given;
    const auto note = [&](const char* name, bool is_given) {
      if (is_given) given.push_back(name);
    };
    note("parameters", parameters.has_value());
    note("adapter", adapter.has_value());
    note("prefix_tuning", prefix_tuning.has_value());
    note("p_tuning_v2", p_tuning_v2.has_value());
    note("prompt_tuning", prompt_tuning.has_value());
    note("ia3", ia3.has_value());
    if (given.size() > 1)
      problems.add(given[1], {.what = "given together with " + given[0], .expected = "one method of fine-tuning"});
  }
};

/// All parameters but those that are frozen.
class FullMethod final : public Method {
 public:
  explicit FullMethod(ParametersConfig config) : config_(std::move(config)) {}

  void apply(nn::Model& model, const ModelOrigin&, uint64_t) override {
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
  void save(const fs::path& folder, const ModelOrigin& origin) const override {
    models::save(*model_, folder,
                 {.companions = origin.weights.empty() ? std::nullopt : std::optional(origin.weights)});
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

/// A method of lib/peft: apply(), and how its folder is written.
template <class Config>
class PeftMethod final : public Method {
 public:
  using Save = void (*)(nn::Model& model, const Config& config, const fs::path& folder, const std::string& base);
  PeftMethod(Config config, Save save) : config_(std::move(config)), save_(save) {}

  void apply(nn::Model& model, const ModelOrigin& origin, uint64_t seed) override {
    model_ = &model;
    if constexpr (std::is_same_v<Config, peft::PromptTuningConfig>)
      peft::apply(model, config_, seed, text_of(origin));
    else
      peft::apply(model, config_, seed);
  }
  void save(const fs::path& folder, const ModelOrigin& origin) const override {
    save_(*model_, config_, folder, origin.name);
  }

 private:
  /// What prompt tuning begins with.
  std::vector<int64_t> text_of(const ModelOrigin& origin) const
    requires std::is_same_v<Config, peft::PromptTuningConfig>
  {
    if (config_.prompt_tuning_init != "TEXT") return {};
    if (!origin.tokenizer)
      throw Error(Exit::usage, {.what = "prompt_tuning_init TEXT needs a tokenizer", .hint = "set tokenizer.name_or_path"});
    std::vector<text::TokenId> ids;
    origin.tokenizer->encode(config_.prompt_tuning_init_text, ids, /*add_special_tokens=*/true);
    return {ids.begin(), ids.end()};
  }

  Config config_;
  Save save_;
  nn::Model* model_ = nullptr;
};

template <class Config>
std::unique_ptr<Method> with_virtual_tokens(const Config& config) {
  return std::make_unique<PeftMethod<Config>>(
      config, [](nn::Model& model, const Config&, const fs::path& folder, const std::string& base) {
        peft::save_virtual_tokens(model, folder, base);
      });
}

std::unique_ptr<Method> method_of(const FinetuneConfig& config) {
  if (config.prefix_tuning) return with_virtual_tokens(*config.prefix_tuning);
  if (config.p_tuning_v2) return with_virtual_tokens(*config.p_tuning_v2);
  if (config.prompt_tuning) return with_virtual_tokens(*config.prompt_tuning);
  if (config.ia3)
    return std::make_unique<PeftMethod<peft::Ia3Config>>(
        *config.ia3, [](nn::Model& model, const peft::Ia3Config&, const fs::path& folder, const std::string& base) {
          peft::save_ia3(model, folder, base);
        });
  if (config.adapter)
    return std::make_unique<PeftMethod<peft::BottleneckConfig>>(
        *config.adapter,
        [](nn::Model& model, const peft::BottleneckConfig& bottleneck, const fs::path& folder, const std::string&) {
          peft::save_bottleneck(model, bottleneck, folder);
        });
  return std::make_unique<FullMethod>(config.parameters.value_or(ParametersConfig()));
}

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
      auto method = method_of(config);
      auto text = as_text(config);
      return make_finetuning(std::move(config), std::move(text), std::move(places), std::move(method));
    });
  });
}
