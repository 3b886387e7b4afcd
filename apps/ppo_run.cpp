#include <torch/csrc/autograd/grad_mode.h>

#include <map>

#include "core/error.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "policy_run.h"
#include "rl/ppo.h"

namespace llmtk {

void PpoRunConfig::validate(config::Problems& problems) const {
  validate_policy(*this, "PPO", problems);
  const train::TrainerConfig plain;
  if (trainer.max_steps != plain.max_steps)
    problems.add("trainer.max_steps", {.what = "has no effect with PPO", .hint = "set ppo.total_episodes"});
  if (trainer.num_train_epochs != plain.num_train_epochs && ppo.total_episodes > 0)
    problems.add("trainer.num_train_epochs",
                 {.what = "has no effect with PPO", .hint = "ppo.total_episodes says how long the run is"});
  if (const int64_t batch = rl::batch_size(trainer); batch % ppo.num_mini_batches != 0)
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
  int64_t other_learners() const override;
  std::unique_ptr<rl::PolicyMethod> make_method(std::shared_ptr<torch::nn::Module>& learners,
                                                std::string& policy_prefix) override;
  void save_others(const fs::path& folder) const override;
  void load_others(const fs::path& folder) const override;
  std::shared_ptr<nn::DecoderClassifier> load_value_model() const;

  PpoRunConfig config_;
  std::shared_ptr<rl::PolicyAndValue> learners_;
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

/// A model of values is about as large as the policy that it begins as; the trunk's head is a row of the table.
int64_t PpoRun::other_learners() const {
  if (config_.ppo.has_trunk_values()) return shape_->lm_head().in_features();
  if (config_.ppo.value_model == "own") return shape_->num_parameters();
  const fs::path folder = io::find_model(config_.ppo.value_model);
  const models::ResolvedModel model = models::resolve_model({.name_or_path = folder.string()}, places_);
  return models::make_model(model.config, model.where, {at::kFloat, c10::kMeta, &model.typed_keys})->num_parameters();
}

/// Of one label; a model without one gets a head that is drawn from the seed.
std::shared_ptr<nn::DecoderClassifier> PpoRun::load_value_model() const {
  if (config_.ppo.has_trunk_values()) return nullptr;
  const std::string path = config_.ppo.value_model == "own" ? model_.weights->string() : config_.ppo.value_model;
  models::LoadOptions load{.dtype = config_.lora ? dtype_ : at::kFloat,
                           .device = device_,
                           .head = nn::Head::sequence_classification,
                           .seed = static_cast<uint64_t>(config_.trainer.seed)};
  if (config_.ppo.value_model == "own") load.overrides["id2label"] = {{"0", "LABEL_0"}};
  auto model = std::dynamic_pointer_cast<nn::DecoderClassifier>(models::load_model(path, load));
  if (!model || model->num_labels() != 1)
    throw Error(Exit::usage, {.what = "ppo.value_model gives no single number to each token",
                              .where = path,
                              .expected = "a decoder's sequence classifier with one label, as rlhf-reward trains"});
  if (model->vocab_size() < policy_->vocab_size() || model->max_positions() < policy_->max_positions())
    throw Error(Exit::usage, {.what = "ppo.value_model does not read what the policy writes",
                              .where = path,
                              .got = detail::concat(model->vocab_size(), " tokens, ", model->max_positions(), " positions"),
                              .expected = detail::concat(policy_->vocab_size(), " and ", policy_->max_positions())});
  return model;
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
