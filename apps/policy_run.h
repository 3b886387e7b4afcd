#pragma once
// A run that teaches a policy from rewards: config -> policy, reference, rewards, prompts -> loop -> save. PPO and GRPO
// say how it learns.

#include <filesystem>
#include <memory>
#include <optional>

#include "models/config.h"
#include "peft/adapter.h"
#include "policy_config.h"
#include "rl/policy_method.h"
#include "rl/prompts.h"
#include "training.h"

namespace llmtk {

class PolicyRun : public TrainingCommand {
 public:
  using Json = nlohmann::ordered_json;

  void prepare() override;
  Json plan() override;
  Json run() override;

 protected:
  explicit PolicyRun(config::Places places) : places_(std::move(places)) {}

  /// Of the method's section.
  struct Section {
    const char* name;
    const rl::ResponseEndConfig& end;
    const char* length_key;
    int64_t length;  ///< new tokens of a response at most
    double temperature;
    int64_t at_once;  ///< responses that are read together
  };
  virtual const PolicyConfig& config() const = 0;
  virtual Section section() const = 0;
  virtual Json json_of_config() const = 0;
  virtual std::string resolved_yaml() const = 0;
  virtual train::AddDefaults add_defaults() const = 0;
  virtual rl::PolicyPlan make_plan() const = 0;
  virtual bool needs_reference() const = 0;
  /// Parameters that are learnt besides the policy's.
  virtual int64_t other_learners() const { return 0; }
  /// Checks what the method needs besides policy, prompts and rewards.
  virtual void prepare_method() {}
  /// The method, and the module whose parameters learn: the policy, and perhaps what it has beside it. policy_prefix: of
  /// the policy's parameters in it.
  virtual std::unique_ptr<rl::PolicyMethod> make_method(std::shared_ptr<torch::nn::Module>& learners,
                                                        std::string& policy_prefix) = 0;
  /// What a checkpoint of a whole model needs besides the policy.
  virtual void save_others(const std::filesystem::path& /*folder*/) const {}
  virtual void load_others(const std::filesystem::path& /*folder*/) const {}

  rl::ReferenceLogProbs reference();

  config::Places places_;
  c10::Device device_ = c10::kCPU;
  c10::ScalarType dtype_ = c10::kFloat;
  models::ResolvedModel model_;
  std::shared_ptr<nn::CausalModel> shape_;  // the policy on the meta device: every size, no memory
  std::unique_ptr<text::Tokenizer> tokenizer_;
  rl::Prompts prompts_;
  int64_t longest_ = 0;            // tokens of a prompt with its response
  int64_t reward_parameters_ = 0;  // of reward models
  std::shared_ptr<nn::CausalModel> policy_, reference_;
  std::optional<peft::Adapter> adapter_;

 private:
  Json resolved() const;
  void check_stop() const;
  RunShape run_shape(const rl::PolicyPlan& plan) const;
  void make_policy();
  train::Task task(std::shared_ptr<torch::nn::Module> learners, const std::string& policy_prefix);
  void save_policy(const std::filesystem::path& folder) const;

  train::Start start_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
};

std::unique_ptr<TrainingCommand> make_ppo(PpoRunConfig config, config::Places places);
std::unique_ptr<TrainingCommand> make_grpo(GrpoRunConfig config, config::Places places);

}  // namespace llmtk
