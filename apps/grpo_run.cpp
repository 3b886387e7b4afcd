#include "policy_run.h"
#include "rl/grpo.h"

namespace llmtk {

void GrpoRunConfig::validate(config::Problems& problems) const {
  validate_policy(*this, "GRPO", problems);
  const train::TrainerConfig plain;
  if (trainer.num_train_epochs != plain.num_train_epochs && trainer.max_steps > 0)
    problems.add("trainer.num_train_epochs",
                 {.what = "has no effect together with max_steps", .hint = "leave one of the two out"});
  if (grpo.steps_per_generation % trainer.gradient_accumulation_steps != 0)
    problems.add("grpo.steps_per_generation",
                 {.what = "is no multiple of trainer.gradient_accumulation_steps",
                  .got = std::to_string(grpo.steps_per_generation),
                  .expected = "a multiple of " + std::to_string(trainer.gradient_accumulation_steps)});
  if (const int64_t batch = rl::grpo_batch_size(grpo, trainer); batch % grpo.num_generations != 0)
    problems.add("grpo.num_generations", {.what = "does not divide the responses of a batch",
                                          .got = std::to_string(grpo.num_generations),
                                          .expected = "a divisor of " + std::to_string(batch)});
}

namespace {

class GrpoRun final : public PolicyRun {
 public:
  GrpoRun(GrpoRunConfig config, config::Places places) : PolicyRun(std::move(places)), config_(std::move(config)) {}

 private:
  const PolicyConfig& config() const override { return config_; }
  Section section() const override {
    const rl::GrpoConfig& grpo = config_.grpo;
    return {"grpo",           grpo,
            "grpo.max_completion_length", grpo.max_completion_length,
            grpo.temperature, grpo.local_rollout_forward_batch_size};
  }
  Json json_of_config() const override { return config::to_json(config_); }
  std::string resolved_yaml() const override { return config::dump(config_); }
  train::AddDefaults add_defaults() const override { return config::add_defaults<GrpoRunConfig>; }
  rl::PolicyPlan make_plan() const override {
    return rl::grpo_plan(config_.grpo, config_.trainer, prompts_.all.size(), *tokenizer_);
  }
  bool needs_reference() const override { return config_.grpo.beta > 0; }
  std::unique_ptr<rl::PolicyMethod> make_method(std::shared_ptr<torch::nn::Module>& learners, std::string&) override {
    learners = policy_;
    return std::make_unique<rl::Grpo>(config_.grpo, policy_, needs_reference() ? reference() : rl::ReferenceLogProbs(),
                                      make_plan().steps_per_batch() > 1);
  }

  GrpoRunConfig config_;
};

}  // namespace

std::unique_ptr<TrainingCommand> make_grpo(GrpoRunConfig config, config::Places places) {
  return std::make_unique<GrpoRun>(std::move(config), std::move(places));
}

}  // namespace llmtk
