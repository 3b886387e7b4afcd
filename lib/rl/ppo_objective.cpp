#include "rl/ppo_objective.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "rl/advantages.h"
#include "rl/policy_losses.h"

namespace llmtk::rl {

StepTokens count_tokens(const Rollout& rollout, const at::Tensor& rows) {
  const auto count = [&](const at::Tensor& mask) { return mask.index_select(0, rows).sum().item<double>(); };
  return {count(rollout.batch.mask()), count(rollout.batch.value_mask())};
}

at::Tensor ppo_loss(const PpoConfig& config, PolicyAndValue& model, const Rollout& rollout, const at::Tensor& rows,
                    const StepTokens& tokens, train::MetricSums& sums, double& ratio_error) {
  const ResponseBatch batch = rollout.batch.rows(rows);
  const auto of_rows = [&](const at::Tensor& values) { return values.index_select(0, rows); };
  const at::Tensor mask = batch.mask(), value_mask = batch.value_mask();
  const Readings now = model.read(batch, config.temperature, /*entropy=*/true);
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
  at::Tensor loss = policy.loss * (n / tokens.policy) + value.loss * (config.vf_coef * n_values / tokens.value);
  if (config.entropy_coef > 0) loss = loss - entropy * (config.entropy_coef * n / tokens.policy);
  return loss;
}

}  // namespace llmtk::rl
