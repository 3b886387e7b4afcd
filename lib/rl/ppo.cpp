#include "rl/ppo.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "rl/advantages.h"
#include "rl/figures.h"
#include "rl/policy_losses.h"

namespace llmtk::rl {

namespace {

at::Tensor kl_of(const PpoConfig& config, const Rollout& rollout) {
  return kl_estimate(rollout.log_probs, rollout.reference, parse_kl_estimator(config.kl_estimator));
}

}  // namespace

int64_t ppo_batch_size(const train::TrainerConfig& trainer) {
  return trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps;
}

PolicyPlan ppo_plan(const PpoConfig& config, const train::TrainerConfig& trainer, size_t prompts,
                    const text::Tokenizer& tokenizer) {
  PolicyPlan plan{.responses = ppo_batch_size(trainer),
                  .passes = config.num_ppo_epochs,
                  .steps_per_pass = config.num_mini_batches,
                  .at_once = config.local_rollout_forward_batch_size,
                  .schedule_by_batch = true,
                  .missing_eos_penalty = config.missing_eos_penalty,
                  .target_kl = config.target_kl,
                  .num_samples = config.num_samples};
  const int64_t passes = trainer.num_train_epochs * static_cast<int64_t>(prompts);
  const int64_t episodes = config.total_episodes > 0 ? config.total_episodes : passes;
  plan.batches = (episodes + plan.responses - 1) / plan.responses;
  plan.sampling.do_sample = true;
  plan.sampling.temperature = config.temperature;
  plan.sampling.top_k = 0;
  plan.sampling.max_new_tokens = config.response_length;
  plan.sampling.seed = static_cast<uint64_t>(trainer.seed);
  set_stop_tokens(plan.sampling, config, tokenizer);
  return plan;
}

void fill_ppo_rollout(const PpoConfig& config, double kl_coef, PolicyAndValue& model,
                      const ReferenceLogProbs& reference, const std::vector<at::Tensor>& parts, Rollout& out,
                      const Readings* known) {
  const c10::NoGradGuard no_gradients;
  LLMTK_CHECK(!known || parts.size() == 1);
  const at::Tensor both = read_in_parts(out.batch, parts, [&](const ResponseBatch& part) {
    const c10::AutoGradMode as_when_learning(true);
    const Readings readings = known ? *known : model.read(part, config.temperature, /*entropy=*/false);
    return at::stack({readings.log_probs, readings.values}, 1).detach();
  });
  out.log_probs = both.select(1, 0).contiguous();
  out.values = both.select(1, 1).contiguous();
  out.reference = read_in_parts(out.batch, parts, reference);

  const at::Tensor mask = out.batch.mask(), value_mask = out.batch.value_mask();
  at::Tensor rewards = token_rewards(kl_of(config, out), kl_coef, out.scores, out.batch.lengths - 1);
  if (config.whiten_rewards)
    rewards = masked_whiten(rewards, value_mask, /*shift_mean=*/false).masked_fill(value_mask.logical_not(), 0);
  const Advantages found = generalized_advantages(rewards, out.values, config.gamma, config.lam);
  out.advantages = masked_whiten(found.advantages, mask).masked_fill(mask.logical_not(), 0);
  out.returns = found.returns;
}

nlohmann::ordered_json ppo_objective(const PpoConfig& config, double kl_coef, const Rollout& rollout) {
  const c10::NoGradGuard no_gradients;
  const double kl = kl_of(config, rollout).sum(1).mean().item<double>();
  const double score = rollout.scores.mean().item<double>();
  return {{"objective/kl", kl},
          {"objective/entropy", -rollout.log_probs.sum(1).mean().item<double>()},
          {"objective/non_score_reward", -kl_coef * kl},
          {"objective/rlhf_reward", score - kl_coef * kl},
          {"objective/scores", score}};
}

at::Tensor ppo_loss(const PpoConfig& config, PolicyAndValue& model, const Rollout& rollout, const at::Tensor& rows,
                    const StepSize& step, train::MetricSums& sums, double& ratio_error) {
  const Readings now = model.read(rollout.batch.rows(rows), config.temperature, /*entropy=*/true);
  return ppo_loss(config, now, rollout, rows, step, sums, ratio_error);
}

at::Tensor ppo_loss(const PpoConfig& config, const Readings& now, const Rollout& rollout, const at::Tensor& rows,
                    const StepSize& step, train::MetricSums& sums, double& ratio_error) {
  const ResponseBatch batch = rollout.batch.rows(rows);
  const auto of_rows = [&](const at::Tensor& values) { return values.index_select(0, rows); };
  const at::Tensor mask = batch.mask(), value_mask = batch.value_mask();
  const at::Tensor before = of_rows(rollout.log_probs);
  const PolicyLoss policy = ppo_policy_loss(now.log_probs, before, of_rows(rollout.advantages), mask, config.cliprange);
  const ClippedLoss value = ppo_value_loss(now.values, of_rows(rollout.values), of_rows(rollout.returns), value_mask,
                                           config.cliprange_value);
  const at::Tensor entropy = masked_mean(now.entropies, mask);

  const at::Tensor error = ((now.log_probs.detach() - before).exp() - 1).abs().max();
  const at::Tensor host = at::stack({mask.sum().to(at::kFloat), value_mask.sum().to(at::kFloat), policy.loss.detach(),
                                     policy.approx_kl, policy.clip_fraction, entropy.detach(), policy.ratio,
                                     value.loss.detach(), value.clip_fraction, error})
                              .to(at::kDouble)
                              .cpu();
  const double* number = host.const_data_ptr<double>();
  const double n = number[0], n_values = number[1];
  const char* const names[] = {"loss/policy_avg", "policy/approxkl_avg", "policy/clipfrac_avg", "policy/entropy_avg",
                               "val/ratio",       "loss/value_avg",      "val/clipfrac_avg"};
  for (int i = 0; i < 7; ++i) {
    const double weight = i < 5 ? n : n_values;
    sums.add(names[i], number[2 + i] * weight, weight);
  }
  ratio_error = std::max(ratio_error, number[9]);
  at::Tensor loss = policy.loss * (n / step.tokens) + value.loss * (config.vf_coef * n_values / step.values);
  if (config.entropy_coef > 0) loss = loss - entropy * (config.entropy_coef * n / step.tokens);
  return loss;
}

Ppo::Ppo(const PpoConfig& config, std::shared_ptr<PolicyAndValue> model, ReferenceLogProbs reference)
    : config_(config),
      model_(std::move(model)),
      reference_(std::move(reference)),
      kl_(config.kl_coef, config.adaptive_kl_target, config.kl_horizon) {}

void Ppo::collect(Rollout& rollout, const std::vector<at::Tensor>& parts) {
  kept_.reset();
  if (std::exchange(has_read_, true) && parts.size() == 1)
    kept_ = model_->read(rollout.batch.rows(parts[0]), config_.temperature, /*entropy=*/true);
  fill_ppo_rollout(config_, kl_.coefficient(), *model_, reference_, parts, rollout, kept_ ? &*kept_ : nullptr);
}

PolicyMethod::Json Ppo::objective(const Rollout& rollout) const {
  Json figures = ppo_objective(config_, kl_.coefficient(), rollout);
  figures["objective/kl_coef"] = kl_.coefficient();
  return figures;
}

at::Tensor Ppo::loss(const Rollout& rollout, const at::Tensor& rows, const StepSize& step, train::MetricSums& sums,
                     double& ratio_error) {
  if (const auto kept = std::exchange(kept_, std::nullopt))
    return ppo_loss(config_, *kept, rollout, rows, step, sums, ratio_error);
  return ppo_loss(config_, *model_, rollout, rows, step, sums, ratio_error);
}

void Ppo::stepped(const Json& means) { ratios_.push_back(means["val/ratio"].get<double>()); }

void Ppo::finish(Json& figures, int64_t responses, double learning_rate) {
  figures["val/ratio_var"] = variance_of(ratios_);
  figures["lr"] = learning_rate;
  kl_.update(figures["objective/kl"].get<double>(), responses);
  ratios_.clear();
}

std::vector<std::pair<const char*, const char*>> Ppo::headline() const {
  return {{"scores", "objective/scores"},
          {"kl", "objective/kl"},
          {"clipped", "policy/clipfrac_avg"},
          {"entropy", "policy/entropy_avg"},
          {"value loss", "loss/value_avg"}};
}

PolicyMethod::Json Ppo::state() const { return {{"kl_coef", kl_.coefficient()}, {"ratios", ratios_}}; }

void Ppo::restore(const Json& state) {
  if (config_.adaptive_kl_target) kl_.set_coefficient(state.at("kl_coef").get<double>());
  ratios_ = state.at("ratios").get<std::vector<double>>();
}

}  // namespace llmtk::rl
