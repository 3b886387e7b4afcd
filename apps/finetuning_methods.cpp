#include "finetuning_methods.h"

#include "core/error.h"
#include "core/suggest.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "peft/prompt_files.h"
#include "peft/targets.h"

namespace llmtk {

namespace fs = std::filesystem;

void FinetuneConfig::validate(config::Problems& problems) const {
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

namespace {

/// All parameters but those that are frozen.
class FullMethod final : public Method {
 public:
  explicit FullMethod(ParametersConfig config) : config_(std::move(config)) {}

  void apply(nn::Model& model, const ModelOrigin&, uint64_t) override {
    model_ = &model;
    rates_.clear();
    for (const auto& expression : config_.frozen)
      for_each_match(expression, "parameters.frozen",
                     [](const std::string&, at::Tensor parameter) { parameter.requires_grad_(false); });
    for (const auto& [expression, rate] : config_.learning_rates)
      for_each_match(expression, "parameters.learning_rates",
                     [&, rate = rate](const std::string& name, const at::Tensor&) { rates_.emplace(name, rate); });
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
    throw Error(Exit::usage,
                {.what = "an expression in " + key + " matches no parameter",
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
  std::vector<int64_t> text_of(
      const ModelOrigin& origin) const requires std::is_same_v<Config, peft::PromptTuningConfig> {
    if (config_.prompt_tuning_init != "TEXT") return {};
    if (!origin.tokenizer)
      throw Error(Exit::usage,
                  {.what = "prompt_tuning_init TEXT needs a tokenizer", .hint = "set tokenizer.name_or_path"});
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

}  // namespace

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
        *config.adapter, [](nn::Model& model, const peft::BottleneckConfig& bottleneck, const fs::path& folder,
                            const std::string&) { peft::save_bottleneck(model, bottleneck, folder); });
  return std::make_unique<FullMethod>(config.parameters.value_or(ParametersConfig()));
}

}  // namespace llmtk
