#include "policy_rewards.h"

#include <filesystem>

#include "core/error.h"
#include "core/log.h"
#include "core/utf8.h"
#include "io/json.h"
#include "reward_teaching.h"
#include "scorer_folder.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;

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
void check_reward_tokenizer(const ScorerFolder& scorer, const text::Tokenizer& policy) {
  const fs::path &folder = scorer.path(), &base = scorer.base();
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

}  // namespace

int64_t check_rewards(const std::vector<rl::RewardSourceConfig>& configs, const text::Tokenizer& tokenizer,
                      int64_t longest) {
  int64_t parameters = 0;
  for (const auto& config : configs) {
    if (config.type != "model") {
      rl::make_rule(config);  // its pattern
      continue;
    }
    const ScorerFolder scorer(config.model);
    check_reward_accuracy(config, scorer.path());
    check_reward_tokenizer(scorer, tokenizer);
    const auto shape = scorer.shape();
    if (shape->max_positions() < longest)
      throw Error(Exit::usage, {.what = "the reward model cannot read the longest prompt with its response",
                                .where = scorer.path().string(),
                                .got = detail::concat(shape->max_positions(), " positions"),
                                .expected = detail::concat(longest, " or more"),
                                .hint = "lower data.max_length, or what responses may have"});
    parameters += shape->num_parameters();
  }
  return parameters;
}

/// Frozen, its weights mapped.
std::shared_ptr<nn::Model> load_reward_model(const std::string& path, c10::ScalarType dtype, c10::Device device) {
  auto model = ScorerFolder(path).load({.dtype = dtype, .device = device, .map = true});
  for (at::Tensor& parameter : model->parameters()) parameter.requires_grad_(false);
  return model;
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
