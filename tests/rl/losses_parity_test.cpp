// Advantages and losses against what TRL's trainers compute of the same figures, gradients included.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "io/tensors.h"
#include "rl/advantages.h"
#include "rl/kl.h"
#include "rl/policy_losses.h"
#include "rl/preference_losses.h"
#include "test.h"

namespace llmtk {
namespace {

using at::Tensor;

std::string reference_file() {
  const char* file = std::getenv("LLMTK_REFERENCE");
  return file && std::filesystem::exists(file) ? file : "";
}

/// The figures of one case.
class Vectors {
 public:
  explicit Vectors(const std::string& name) : name_(name) {
    for (const auto& [key, tensor] : io::load_tensors(reference_file()))
      if (key.starts_with(name + ".")) all_[key.substr(name.size() + 1)] = tensor.clone();
    REQUIRE(!all_.empty());
  }
  const Tensor& operator[](const std::string& key) const {
    INFO(name_ << "." << key);
    REQUIRE(all_.contains(key));
    return all_.at(key);
  }
  bool has(const std::string& key) const { return all_.contains(key); }
  Tensor leaf(const std::string& key) const { return (*this)[key].clone().set_requires_grad(true); }
  /// Within 5e-5 of the reference's largest absolute value.
  void check(const Tensor& got, const std::string& key) const {
    const Tensor expected = (*this)[key].to(at::kFloat);
    INFO(name_ << "." << key << ": " << got << " for " << expected);
    REQUIRE(got.numel() == expected.numel());
    const double scale = std::max(expected.abs().max().item<double>(), 1e-6);
    CHECK((got.view_as(expected).to(at::kFloat) - expected).abs().max().item<double>() < 5e-5 * scale);
  }
  void check_gradients(const Tensor& loss, const std::map<std::string, Tensor>& leaves) const {
    for (const auto& [key, leaf] : leaves)
      check(torch::autograd::grad({loss}, {leaf}, {}, /*retain_graph=*/true)[0], "grad." + key);
  }

 private:
  std::string name_;
  std::map<std::string, Tensor> all_;
};

#define NEED_REFERENCE() \
  if (reference_file().empty()) LLMTK_SKIP("no reference: the Python peers are not there")

}  // namespace

TEST_CASE("whitening and its mean are TRL's") {
  NEED_REFERENCE();
  const Vectors v("whiten");
  v.check(rl::masked_mean(v["values"], v["mask"]), "mean");
  v.check(rl::masked_whiten(v["values"], v["mask"]), "whitened");
  v.check(rl::masked_whiten(v["values"], v["mask"], /*shift_mean=*/false), "unshifted");
}

TEST_CASE("KL, rewards, advantages and returns of a rollout are those of TRL's loop") {
  NEED_REFERENCE();
  for (const std::string name : {"k1", "k3"}) {
    const Vectors v("rollout." + name);
    const Tensor kl = rl::kl_estimate(v["old"], v["ref"], rl::parse_kl_estimator(name));
    v.check(kl, "kl");
    const Tensor rewards = rl::token_rewards(kl, 0.3, v["scores"], v["last"]);
    v.check(rewards, "rewards");
    const auto [advantages, returns] = rl::generalized_advantages(rewards, v["values"], 0.98, 0.9);
    v.check(advantages, "advantages");
    v.check(returns, "returns");
  }
}

TEST_CASE("PPO's losses of policy and values, their gradients and figures") {
  NEED_REFERENCE();
  const Vectors p("ppo.policy");
  const Tensor log_probs = p.leaf("new");
  const auto policy = rl::ppo_policy_loss(log_probs, p["old"], p["advantages"], p["mask"], 0.2);
  p.check(policy.loss, "loss");
  p.check(policy.clip_fraction, "clipfrac");
  p.check(policy.approx_kl, "approxkl");
  p.check(policy.ratio, "ratio");
  p.check_gradients(policy.loss, {{"new", log_probs}});
  const Vectors v("ppo.value");
  const Tensor values = v.leaf("new");
  const auto value = rl::ppo_value_loss(values, v["old"], v["returns"], v["mask"], 0.2);
  v.check(value.loss, "loss");
  v.check(value.clip_fraction, "clipfrac");
  v.check_gradients(value.loss, {{"new", values}});
}

TEST_CASE("advantages in groups, scaled in each way") {
  NEED_REFERENCE();
  const std::pair<const char*, rl::ScaleRewards> ways[] = {
      {"group", rl::ScaleRewards::group}, {"batch", rl::ScaleRewards::batch}, {"none", rl::ScaleRewards::none}};
  for (const auto& [name, way] : ways) {
    const Vectors v(std::string("group.") + name);
    v.check(rl::group_advantages(v["rewards"], 3, way), "advantages");
  }
}

TEST_CASE("GRPO's loss by every mean, two-sided, and with one ratio for a sequence") {
  NEED_REFERENCE();
  for (const std::string name : {"grpo", "bnpo", "dr_grpo", "dapo", "two_sided", "sequence"}) {
    const Vectors v("grpo." + name);
    rl::GrpoOptions options{.epsilon_high = 0.28, .beta = v.has("kl") ? 0.04 : 0.0};
    options.max_completion_length = v["mask"].size(1);
    options.num_items = v["mask"].sum().item<double>();
    if (name == "two_sided") options.delta = 1.5;
    options.sequence_level = name == "sequence";
    options.mean = rl::parse_grpo_loss(name == "two_sided" ? "dapo" : name == "sequence" ? "grpo" : name);
    const Tensor log_probs = v.leaf("new");
    const auto found =
        rl::grpo_loss(log_probs, v["old"], options.beta > 0 ? v["ref"] : Tensor(), v["advantages"], v["mask"], options);
    v.check(found.loss, "loss");
    v.check(found.clipped_low, "low");
    v.check(found.clipped_high, "high");
    if (options.beta > 0) v.check(found.kl, "kl");
    v.check_gradients(found.loss, {{"new", log_probs}});
  }
}

TEST_CASE("DPO's losses and their gradients in the answers' log-probabilities") {
  NEED_REFERENCE();
  const std::pair<const char*, rl::DpoOptions> cases[] = {
      {"sigmoid", {.loss = rl::DpoLoss::sigmoid}},
      {"hinge", {.loss = rl::DpoLoss::hinge}},
      {"ipo", {.loss = rl::DpoLoss::ipo, .beta = 0.3}},
      {"robust", {.loss = rl::DpoLoss::robust, .beta = 0.2, .label_smoothing = 0.1}},
      {"conservative", {.loss = rl::DpoLoss::sigmoid, .label_smoothing = 0.2}}};
  for (const auto& [name, options] : cases) {
    const Vectors v(std::string("dpo.") + name);
    const Tensor chosen = v.leaf("chosen"), rejected = v.leaf("rejected");
    std::vector<Tensor> lengths(2);
    if (v.has("lengths")) lengths = v["lengths"].chunk(2);
    const Tensor loss = rl::dpo_loss(chosen, rejected, options, lengths[0], lengths[1]).mean();
    v.check(loss, "loss");
    v.check_gradients(loss, {{"chosen", chosen}, {"rejected", rejected}});
  }
}

TEST_CASE("KTO, ORPO's odds and Bradley-Terry") {
  NEED_REFERENCE();
  const Vectors k("kto");
  const Tensor kl = rl::kto_kl(k["mismatched"]);
  k.check(kl, "kl");
  const rl::KtoOptions options{.beta = 0.2, .desirable_weight = 1.3, .undesirable_weight = 0.7};
  k.check(rl::kto_loss(k["ratios"], k["labels"], kl, options).mean(), "loss");

  const Vectors o("orpo");
  const Tensor chosen = o.leaf("chosen"), rejected = o.leaf("rejected");
  const Tensor odds = rl::log_odds_ratio(chosen, rejected), loss = -0.1 * at::log_sigmoid(odds).mean();
  o.check(odds.mean(), "log_odds");
  o.check(loss, "loss");
  o.check_gradients(loss, {{"chosen", chosen}, {"rejected", rejected}});

  for (const std::string name : {"plain", "margin"}) {
    const Vectors r("reward." + name);
    const Tensor rewards = r.leaf("rewards");
    const auto halves = rewards.chunk(2);
    const bool margin = r.has("margin");
    const Tensor pairs =
        rl::bradley_terry_loss(halves[0], halves[1], margin ? r["margin"] : Tensor(), margin ? 0.01 : 0);
    r.check(pairs.mean(), "loss");
    r.check_gradients(pairs.mean(), {{"rewards", rewards}});
  }
}

}  // namespace llmtk
