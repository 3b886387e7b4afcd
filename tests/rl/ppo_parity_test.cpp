// A batch of PPO against what TRL's own trainer computes of the same responses: ppo_reference.py.

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "dist/parallel.h"
#include "rl/ppo.h"
#include "rl/trl_run.h"
#include "test.h"
#include "train/gradients.h"
#include "train/update.h"

using namespace llmtk;
using at::Tensor;

namespace {

rl::PpoConfig settings(bool whitened = false) {
  rl::PpoConfig config;
  config.whiten_rewards = whitened;
  if (whitened) config.kl_estimator = "k3";
  config.num_ppo_epochs = 3;
  config.num_mini_batches = 2;
  config.kl_coef = 0.2;
  config.temperature = 0.8;
  config.gamma = 0.98;
  config.lam = 0.9;
  config.cliprange = config.cliprange_value = 0.02;
  config.vf_coef = 0.5;
  return config;
}

constexpr double kMissingEosPenalty = 0.7;

struct Reference : TrlRun {
  explicit Reference(bool whitened = false) : TrlRun(whitened ? trl_folder() / "whitened" : trl_folder()) {}
};

/// Within 5e-5 of the reference's largest absolute value.
void check_near(const Tensor& got, const Tensor& expected, const std::string& name) {
  REQUIRE(got.sizes() == expected.sizes());
  const double error = (got.detach().to(at::kFloat) - expected).abs().max().item<double>() / expected.abs().max().item<double>();
  INFO(name << ": " << error);
  CHECK(error < 5e-5);
}

struct Learners {
  explicit Learners(const Reference& reference)
      : model(reference.model<nn::CausalModel>("policy"), reference.model<nn::DecoderClassifier>("value")),
        reference_model(reference.model<nn::CausalModel>("reference")) {}

  rl::Rollout rollout(const Reference& reference, const rl::PpoConfig& config, const std::vector<double>& rated,
                      int64_t rows_at_once = 6) {
    std::vector<float> scores;
    for (size_t i = 0; i < rated.size(); ++i)
      scores.push_back(static_cast<float>(rated[i] - (reference.responses[i].ended ? 0 : kMissingEosPenalty)));
    rl::Rollout rollout{.batch = rl::make_batch(reference.responses, at::kCPU), .scores = at::tensor(scores)};
    rl::fill_ppo_rollout(
        config, config.kl_coef, model,
        [&](const rl::ResponseBatch& batch) { return rl::response_log_probs(*reference_model, batch, config.temperature); },
        at::tensor({3, 0, 5, 1, 4, 2}, at::kLong).split(rows_at_once), rollout);
    return rollout;
  }

  rl::PolicyAndValue model;
  std::shared_ptr<nn::CausalModel> reference_model;
};

#define NEED_PPO_REFERENCE() \
  if (trl_folder().empty()) LLMTK_SKIP("no reference: the Python peers are not there")

}  // namespace

TEST_CASE("a batch of PPO is TRL's, from the rewards of responses to the weights after all passes") {
  NEED_PPO_REFERENCE();
  const bool whitened = GENERATE(false, true);
  Reference trl(whitened);
  Learners learners(trl);
  const rl::PpoConfig config = settings(whitened);

  const auto rated = rl::make_model_reward(trl.model<nn::Model>("reward"), 4)->rate(trl.responses);
  check_near(at::tensor(rated).to(at::kFloat), trl.all["scores"], "scores");
  const rl::Rollout rollout = learners.rollout(trl, config, rated, GENERATE(6, 4));
  const Tensor mask = rollout.batch.mask(), value_mask = rollout.batch.value_mask();
  const auto at_tokens = [](const Tensor& x, const Tensor& places) { return x.masked_fill(places.logical_not(), 0); };
  check_near(rollout.log_probs, at_tokens(trl.all["log_probs"], mask), "log_probs");
  check_near(rollout.reference, at_tokens(trl.all["reference"], mask), "reference");
  check_near(rollout.values, at_tokens(trl.all["values"], value_mask), "values");
  check_near(rollout.advantages, at_tokens(trl.all["advantages"], mask), "advantages");
  check_near(rollout.returns, trl.all["plain_advantages"] + at_tokens(trl.all["values"], value_mask), "returns");
  const auto objective = rl::ppo_objective(config, config.kl_coef, rollout);
  for (const char* name : {"objective/kl", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores"}) {
    INFO(name);
    CHECK(objective[name].get<double>() == Approx(trl.figures[name].get<double>()).epsilon(1e-4));
  }

  train::OptimizerConfig sgd;
  sgd.type = "sgd";
  sgd.learning_rate = 0.02;
  sgd.max_grad_norm = 0;
  const auto optimizer = train::make_optimizer(sgd, learners.model, std::nullopt);
  train::Gradients gradients(optimizer->parameters(), false);
  const auto alone = dist::single_process();
  const Tensor orders = trl.all["orders"];
  const int64_t micro_batch = GENERATE(3, 2);  // TRL's mini-batch in one piece, and in two that add up to it
  train::MetricSums figures;
  for (int64_t step = 0; step < config.num_ppo_epochs * config.num_mini_batches; ++step) {
    const Tensor rows = orders[step / config.num_mini_batches].narrow(0, step % config.num_mini_batches * 3, 3);
    const rl::StepSize size = rl::size_of(rollout, rows);
    train::MetricSums sums;
    double ratio_error = 0;
    Tensor total = at::zeros({});
    for (const Tensor& part : rows.split(micro_batch)) {
      Tensor loss = rl::ppo_loss(config, learners.model, rollout, part, size, sums, ratio_error);
      loss.backward();
      total += loss.detach();
    }
    if (step == 0) CHECK(ratio_error < 1e-4);
    const auto means = sums.means();
    for (const auto& [name, mean] : means.items()) figures.add(name, mean.get<double>(), 1);
    CHECK(train::update(*optimizer, gradients, sgd, 1.0, total, *alone).finite);
  }
  // TRL's other figures count padding.
  for (const char* name : {"loss/policy_avg", "loss/value_avg", "policy/clipfrac_avg", "val/clipfrac_avg"}) {
    INFO(name);
    CHECK(figures.means()[name].get<double>() == Approx(trl.figures[name].get<double>()).epsilon(1e-3));
  }
  size_t compared = 0;
  for (const auto& parameter : learners.model.named_parameters()) {
    std::string name = parameter.key();
    name = "after." + (name.starts_with("value_model.") ? "value." + name.substr(12) : name);
    REQUIRE(trl.all.contains(name));
    check_near(parameter.value(), trl.all[name], name);
    ++compared;
  }
  CHECK(compared > 30);
}

TEST_CASE("values on the policy's trunk begin as 0, and the loss reaches head and trunk") {
  NEED_PPO_REFERENCE();
  Reference trl;
  Learners learners(trl);
  rl::PolicyAndValue model(trl.model<nn::CausalModel>("policy"), nullptr);
  const rl::ResponseBatch batch = rl::make_batch(trl.responses, at::kCPU);
  CHECK(model.read(batch, 1.0, false).values.abs().max().item<double>() == 0);
  const auto head = model.named_parameters()["value_head.weight"];
  {
    const c10::NoGradGuard no_gradients;
    head.normal_();
  }
  const rl::Readings readings = model.read(batch, 1.0, true);
  // The third response is its end of text alone: a value before it and one behind.
  const Tensor alone = at::cat({trl.all["prompts"][2].narrow(0, 0, trl.all["prompt_lengths"][2].item<int64_t>()),
                                trl.all["responses"][2].narrow(0, 0, 1)}).unsqueeze(0);
  const Tensor values = model.policy().forward(alone).matmul(head.t()).flatten();
  const int64_t P = alone.size(1) - 1;
  CHECK(readings.values[2][0].item<double>() == Approx(values[P - 1].item<double>()).epsilon(1e-4));
  CHECK(readings.values[2][1].item<double>() == Approx(values[P].item<double>()).epsilon(1e-4));
  CHECK(readings.values[2].slice(0, 2).abs().max().item<double>() == 0);
  readings.values.sum().backward();
  CHECK(head.grad().abs().max().item<double>() > 0);
  CHECK(model.named_parameters()["policy.model.layers.0.self_attn.q_proj.weight"].grad().abs().max().item<double>() > 0);
}

TEST_CASE("an entropy bonus is its coefficient times the mean entropy of the step's tokens") {
  NEED_PPO_REFERENCE();
  Reference trl;
  Learners learners(trl);
  rl::PpoConfig config = settings();
  const rl::Rollout rollout = learners.rollout(trl, config, std::vector<double>(6, 0.5));
  const Tensor rows = at::arange(6, at::kLong);
  const auto loss = [&](double coefficient, train::MetricSums& sums) {
    config.entropy_coef = coefficient;
    double error = 0;
    return rl::ppo_loss(config, learners.model, rollout, rows, rl::size_of(rollout, rows), sums, error).item<double>();
  };
  train::MetricSums sums, again;
  const double without = loss(0, sums), with = loss(0.3, again);
  CHECK(without - with == Approx(0.3 * sums.means()["policy/entropy_avg"].get<double>()).epsilon(1e-4));
}

TEST_CASE("what a rollout reads in one piece is read for the first pass too, and is the same to the bit") {
  NEED_PPO_REFERENCE();
  Reference trl;
  Learners learners(trl);
  const rl::PpoConfig config = settings();
  rl::Ppo method(config, {std::shared_ptr<void>(), &learners.model},
                 [&](const rl::ResponseBatch& batch) { return rl::response_log_probs(*learners.reference_model, batch, 0.8); });
  const std::vector<Tensor> whole = {at::tensor({3, 0, 5, 1, 4, 2}, at::kLong)}, halves = whole[0].split(3);
  const auto parameters = learners.model.parameters();
  struct Learnt {
    double loss, ratio_error = 0;
    std::vector<Tensor> gradients;
  };
  const auto learn = [&](const std::vector<Tensor>& parts, double moved) {
    rl::Rollout rollout{.batch = rl::make_batch(trl.responses, at::kCPU), .scores = at::full({6}, 0.5)};
    method.collect(rollout, parts);
    {
      const c10::NoGradGuard no_gradients;
      parameters[0].add_(moved);
    }
    train::MetricSums sums;
    Learnt learnt;
    const Tensor loss = method.loss(rollout, parts[0], rl::size_of(rollout, whole[0]), sums, learnt.ratio_error);
    learnt.loss = loss.item<double>();
    if (moved == 0) {
      for (const Tensor& parameter : parameters) parameter.mutable_grad().reset();
      loss.backward();
      for (const Tensor& parameter : parameters) learnt.gradients.push_back(parameter.grad().clone());
    }
    return learnt;
  };
  const Learnt twice = learn(whole, 0), once = learn(whole, 0);
  CHECK(twice.loss == once.loss);
  for (size_t i = 0; i < parameters.size(); ++i) CHECK(twice.gradients[i].equal(once.gradients[i]));
  CHECK(learn(whole, 1e-3).ratio_error == 0);  // weights that moved behind the reading are not read again
  CHECK(learn(halves, 1e-3).ratio_error > 0);
}

TEST_CASE("what is read without gradients is what is read with them, to the bit") {
  NEED_PPO_REFERENCE();
  Reference trl;
  const auto dtype = GENERATE(at::kFloat, at::kBFloat16);
  const auto policy = models::load<nn::CausalModel>((trl.folder / "policy").string(), {.dtype = dtype});
  policy->eval();
  const rl::ResponseBatch batch = rl::make_batch(trl.responses, at::kCPU);
  const Tensor with = policy->forward(batch.ids).detach();
  const rl::Readings readings = rl::read_policy(*policy, batch, 0.8, true);
  const c10::NoGradGuard no_gradients;
  CHECK(policy->forward(batch.ids).equal(with));
  CHECK(rl::read_policy(*policy, batch, 0.8, false).log_probs.equal(readings.log_probs.detach()));
}
