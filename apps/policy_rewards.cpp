#include "policy_rewards.h"

#include <filesystem>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "io/json.h"
#include "io/model_folder.h"
#include "models/registry.h"
#include "open_model.h"
#include "reward_teaching.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAdapterConfig = "adapter_config.json";

/// The folder of the weights: of an adapter, its base's.
fs::path reward_base(const fs::path& folder) {
  if (!fs::exists(folder / kAdapterConfig)) return folder;
  const io::Json config = io::read_json(folder / kAdapterConfig);
  return io::find_model(config.value("base_model_name_or_path", ""));
}

void check_reward_accuracy(const rl::RewardSourceConfig& config, const fs::path& folder) {
  const fs::path file = folder / kRewardEvaluationFile;
  if (!fs::exists(file)) {
    if (config.min_accuracy)
      log::warn(folder.string() + ": nothing says how good this reward model is on held-out pairs, so min_accuracy " +
                detail::concat(*config.min_accuracy) + " is not checked");
    return;
  }
  const io::Json evaluation = io::read_json(file);
  const double accuracy = evaluation.value("accuracy", 0.0);
  if (config.min_accuracy && accuracy < *config.min_accuracy)
    throw Error(Exit::bound, {.what = "the reward model is not as good as the config asks for",
                              .where = file.string(),
                              .got = detail::concat("accuracy ", accuracy, " on ", evaluation.value("pairs", 0), " pairs"),
                              .expected = detail::concat("min_accuracy ", *config.min_accuracy, " or more")});
}

/// The same text must be the same ids for both.
void check_reward_tokenizer(const fs::path& folder, const text::Tokenizer& policy) {
  const fs::path base = reward_base(folder);
  if (!text::holds_tokenizer(folder) && !text::holds_tokenizer(base)) {
    log::warn(folder.string() + ": without a tokenizer; it is taken to be the policy's");
    return;
  }
  const auto own = text::load_tokenizer(text::holds_tokenizer(folder) ? folder : base);
  std::string differs;
  if (own->vocab_size() != policy.vocab_size())
    differs = detail::concat(own->vocab_size(), " tokens, the policy's has ", policy.vocab_size());
  for (text::TokenId id = 0; differs.empty() && id < static_cast<text::TokenId>(policy.vocab_size()); ++id)
    if (own->id_to_token(id) != policy.id_to_token(id))
      differs = detail::concat("token ", id, " is ", in_quotes(own->id_to_token(id)), ", the policy's is ",
                               in_quotes(policy.id_to_token(id)));
  if (!differs.empty())
    throw Error(Exit::usage, {.what = "the reward model has another tokenizer than the policy",
                              .where = folder.string(),
                              .got = differs,
                              .expected = "the policy's",
                              .hint = "train a reward model from a model of the policy's family"});
}

std::shared_ptr<nn::Model> load_reward_model(const std::string& path, c10::ScalarType dtype, c10::Device device) {
  const fs::path folder = io::find_model(path), base = reward_base(folder);
  models::LoadOptions load{.dtype = dtype, .device = device, .map = true};
  std::vector<std::string> adapters;
  if (base != folder) adapters.push_back(folder.string());
  expect_adapters(load, base, adapters);
  auto model = models::load_model(base.string(), load);
  add_adapters(*model, adapters);
  if (model->head() != nn::Head::sequence_classification || model->num_labels() != 1)
    throw Error(Exit::usage, {.what = "not a reward model",
                              .where = folder.string(),
                              .got = std::to_string(model->num_labels()) + " labels",
                              .expected = "a sequence classifier with one label",
                              .hint = "llmtk rlhf-reward CONFIG trains one"});
  model->eval();
  for (at::Tensor& parameter : model->parameters()) parameter.requires_grad_(false);
  return model;
}

}  // namespace

void check_reward_models(const std::vector<rl::RewardSourceConfig>& configs, const text::Tokenizer& tokenizer) {
  for (const auto& config : configs) {
    if (config.type != "model") {
      rl::make_rule(config);  // its pattern
      continue;
    }
    const fs::path folder = io::find_model(config.model);
    check_reward_accuracy(config, folder);
    check_reward_tokenizer(folder, tokenizer);
  }
}

rl::Rewards open_rewards(const std::vector<rl::RewardSourceConfig>& configs, c10::ScalarType dtype, c10::Device device,
                         int64_t batch_size) {
  rl::Rewards rewards;
  for (const auto& config : configs)
    rewards.add(config.type, config.weight,
                config.type == "model"
                    ? rl::make_model_reward(load_reward_model(config.model, dtype, device), batch_size)
                    : rl::make_rule(config));
  return rewards;
}

}  // namespace llmtk
