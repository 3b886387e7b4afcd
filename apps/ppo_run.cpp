#include <torch/csrc/autograd/grad_mode.h>

#include <map>

#include "core/error.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "policy_run.h"
#include "rl/ppo.h"
#include "scorer_folder.h"

namespace llmtk {

void PpoRunConfig::validate(config::Problems& problems) const {
  validate_policy(*this, "PPO", problems);
  const train::TrainerConfig plain;
  if (trainer.max_steps != plain.max_steps)
    problems.add("trainer.max_steps", {.what = "has no effect with PPO", .hint = "set ppo.total_episodes"});
  if (trainer.num_train_epochs != plain.num_train_epochs && ppo.total_episodes > 0)
    problems.add("trainer.num_train_epochs",
                 {.what = "has no effect with PPO", .hint = "ppo.total_episodes says how long the run is"});
  const int64_t batch = rl::ppo_batch_size(trainer);
  if (batch < 2)
    problems.add("trainer.per_device_train_batch_size", {.what = "one response has no variance to whiten advantages with",
                                                         .got = std::to_string(batch),
                                                         .expected = "2 or more responses in a batch"});
  if (batch % ppo.num_mini_batches != 0)
    problems.add("ppo.num_mini_batches", {.what = "does not divide the responses of a batch",
                                          .got = std::to_string(ppo.num_mini_batches),
                                          .expected = "a divisor of per_device_train_batch_size * "
                                                      "gradient_accumulation_steps = " + std::to_string(batch)});
}

namespace {

namespace fs = std::filesystem;

constexpr const char* kValueFile = "value.safetensors";

class PpoRun final : public PolicyRun {
 public:
  PpoRun(PpoRunConfig config, config::Places places) : PolicyRun(std::move(places)), config_(std::move(config)) {}

 private:
  const PolicyConfig& config() const override { return config_; }
  Section section() const override {
    const rl::PpoConfig& ppo = config_.ppo;
    return {"ppo", ppo, "ppo.response_length", ppo.response_length, ppo.temperature, ppo.local_rollout_forward_batch_size};
  }
  Json json_of_config() const override { return config::to_json(config_); }
  std::string resolved_yaml() const override { return config::dump(config_); }
  train::AddDefaults add_defaults() const override { return config::add_defaults<PpoRunConfig>; }
  rl::PolicyPlan make_plan() const override {
    return rl::ppo_plan(config_.ppo, config_.trainer, prompts_.all.size(), *tokenizer_);
  }
  bool needs_reference() const override { return true; }
  int64_t other_learners() const override { return value_parameters_; }
  void prepare_method() override;
  std::unique_ptr<rl::PolicyMethod> make_method(std::shared_ptr<torch::nn::Module>& learners,
                                                std::string& policy_prefix) override;
  void save_others(const fs::path& folder) const override;
  void load_others(const fs::path& folder) const override;
  ScorerFolder value_folder() const;
  std::shared_ptr<nn::DecoderClassifier> load_value_model() const;

  PpoRunConfig config_;
  std::shared_ptr<rl::PolicyAndValue> learners_;
  int64_t value_parameters_ = 0;
};

std::unique_ptr<rl::PolicyMethod> PpoRun::make_method(std::shared_ptr<torch::nn::Module>& learners,
                                                      std::string& policy_prefix) {
  auto value_model = load_value_model();
  if (value_model) value_model->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  learners_ = std::make_shared<rl::PolicyAndValue>(policy_, std::move(value_model));
  learners_->eval();
  learners = learners_;
  policy_prefix = "policy.";
  return std::make_unique<rl::Ppo>(config_.ppo, learners_, reference());
}

ScorerFolder PpoRun::value_folder() const {
  const bool own = config_.ppo.value_model == "own";
  return ScorerFolder(own ? model_.weights->string() : config_.ppo.value_model, /*new_head=*/true);
}

void PpoRun::prepare_method() {
  if (config_.ppo.has_trunk_values()) {
    value_parameters_ = shape_->lm_head().in_features();
    return;
  }
  const auto model = value_folder().shape();
  value_parameters_ = model->num_parameters();
  if (!dynamic_cast<const nn::DecoderClassifier*>(model.get()))
    throw Error(Exit::usage, {.what = "ppo.value_model gives no number to each token",
                              .where = value_folder().path().string(),
                              .expected = "a decoder, or a sequence classifier on one"});
  if (model->vocab_size() < shape_->vocab_size() || model->max_positions() < longest_)
    throw Error(Exit::usage, {.what = "ppo.value_model does not read what the policy writes",
                              .where = value_folder().path().string(),
                              .got = detail::concat(model->vocab_size(), " tokens, ", model->max_positions(), " positions"),
                              .expected = detail::concat(shape_->vocab_size(), " and ", longest_)});
}

/// Of one label; a model without one gets a head that is drawn from the seed. An adapter is multiplied in: values learn
/// whole.
std::shared_ptr<nn::DecoderClassifier> PpoRun::load_value_model() const {
  if (config_.ppo.has_trunk_values()) return nullptr;
  auto model = value_folder().load({.dtype = config_.lora ? dtype_ : at::kFloat,
                                    .device = device_,
                                    .seed = static_cast<uint64_t>(config_.trainer.seed)});
  peft::merge_adapters(*model);
  for (at::Tensor& parameter : model->parameters()) parameter.requires_grad_(true);
  return std::dynamic_pointer_cast<nn::DecoderClassifier>(model);
}

void PpoRun::save_others(const fs::path& folder) const {
  io::NamedTensors tensors;
  for (const auto& parameter : learners_->value().named_parameters())
    tensors.emplace_back(parameter.key(), parameter.value());
  io::save_tensors(folder / kValueFile, tensors);
}

void PpoRun::load_others(const fs::path& folder) const {
  const torch::autograd::AutoGradMode no_grad(false);
  const std::string where = (folder / kValueFile).string();
  const auto saved = io::load_tensors(where);
  const std::map<std::string, at::Tensor> by_name(saved.begin(), saved.end());
  for (auto& parameter : learners_->value().named_parameters()) {
    const auto found = by_name.find(parameter.key());
    if (found == by_name.end() || found->second.sizes() != parameter.value().sizes() ||
        found->second.scalar_type() != parameter.value().scalar_type())
      throw Error(Exit::file, {.what = "tensor '" + parameter.key() + "' is missing or of another shape or type", .where = where});
    parameter.value().copy_(found->second);
  }
}

}  // namespace

std::unique_ptr<TrainingCommand> make_ppo(PpoRunConfig config, config::Places places) {
  return std::make_unique<PpoRun>(std::move(config), std::move(places));
}

}  // namespace llmtk
