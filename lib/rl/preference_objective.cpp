#include "rl/preference_objective.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/grad_mode.h>

#include "core/error.h"
#include "core/progress.h"
#include "data/loader.h"
#include "rl/answers.h"
#include "rl/figures.h"
#include "rl/preference_losses.h"

namespace llmtk::rl {
namespace {

using at::Tensor;
using train::MetricSums;

DpoOptions dpo_options(const DpoConfig& config) {
  const std::string& type = config.loss_type;
  return {.loss = type == "hinge"    ? DpoLoss::hinge
                  : type == "ipo"    ? DpoLoss::ipo
                  : type == "robust" ? DpoLoss::robust
                                     : DpoLoss::sigmoid,
          .beta = config.beta,
          .label_smoothing = config.label_smoothing};
}

/// [B, K]
Tensor values_of(const data::Batch& batch, int64_t columns, c10::Device device) {
  LLMTK_CHECK(batch.num_values() == columns, batch.num_values(), " values a row, ", columns,
              " expected: has the reference read the data?");
  return at::tensor(batch.values).view({batch.rows, columns}).to(device);
}

Tensor sum_of_rows(const Tensor& losses, const Tensor& valid) { return at::where(valid, losses, 0).sum(); }

/// What a pair says of its two answers.
void add_pair_figures(MetricSums& sums, const Tensor& chosen_rewards, const Tensor& rejected_rewards,
                      const Tensor& chosen_logps, const Tensor& rejected_logps, const Tensor& valid) {
  const Figure figures[] = {{"rewards/chosen", chosen_rewards, valid},
                            {"rewards/rejected", rejected_rewards, valid},
                            {"rewards/accuracies", (chosen_rewards > rejected_rewards).to(at::kFloat), valid},
                            {"rewards/margins", chosen_rewards - rejected_rewards, valid},
                            {"logps/chosen", chosen_logps, valid},
                            {"logps/rejected", rejected_logps, valid}};
  add_figures(sums, figures);
}

void add_entropy(MetricSums& sums, const AnswerLogProbs& found, const Answers& answers) {
  const Figure figure[] = {{"entropy", found.entropies.flatten(), answers.asked().flatten()}};
  add_figures(sums, figure);
}

}  // namespace

std::vector<std::string> figures_of(const DpoConfig& config) {
  std::vector<std::string> names = {"rewards/chosen", "rewards/rejected", "rewards/margins",
                                    "logps/chosen",   "logps/rejected",   "entropy"};
  if (config.is_kto()) names.emplace_back("kl");
  if (!config.is_kto()) names.emplace_back("rewards/accuracies");
  if (!config.has_reference()) names.insert(names.end(), {"nll_loss", "log_odds_ratio", "log_odds_chosen"});
  return names;
}

std::vector<float> PreferenceObjective::reference(std::shared_ptr<data::RowSource> rows, int64_t batch_size) const {
  const torch::autograd::AutoGradMode no_grad(false);
  const bool training = model_->is_training();
  model_->eval();
  std::vector<float> values;
  const auto count = static_cast<int64_t>(rows->rows());
  Progress progress(count, {.label = "reference, row", .log_seconds = 30});
  data::RowLoader loader({{rows, 1, 0, "the reference's data"}}, {.batch_size = batch_size, .shuffle = false});
  for (data::Batch batch; loader.next(batch);) {
    const Answers answers = split_answers(batch, model_->device());
    const Tensor sums = answer_log_probs(*model_, answers, answers.targets).sums();          // [2 B], first ones first
    const Tensor by_row = sums.view({2, batch.rows}).t().contiguous().cpu().to(at::kFloat);  // [B, 2]
    values.insert(values.end(), by_row.const_data_ptr<float>(), by_row.const_data_ptr<float>() + by_row.numel());
    const auto done = static_cast<int64_t>(values.size()) / 2;
    progress.update(done, {}, done < count);
  }
  progress.finish();
  model_->train(training);
  return values;
}

Tensor PreferenceObjective::loss(const data::Batch& batch, double scale, MetricSums& sums) const {
  const Tensor total = config_.is_kto()          ? kto(batch, sums)
                       : config_.has_reference() ? dpo(batch, sums)
                                                 : orpo(batch, sums);
  return (total * scale).to(at::kFloat);
}

Tensor PreferenceObjective::dpo(const data::Batch& batch, MetricSums& sums) const {
  const Answers answers = split_answers(batch, model_->device());
  const AnswerLogProbs found = answer_log_probs(*model_, answers, answers.targets, /*entropy=*/true);
  const Tensor reference = values_of(batch, 2, model_->device()).t().flatten();  // [2 B]
  const Tensor all = found.sums(), lengths = answers.answer_lengths();
  const auto logps = all.chunk(2), ratios = (all - reference).chunk(2), long_as = lengths.chunk(2);
  const Tensor valid = long_as[0] > 0;
  const Tensor losses = dpo_loss(ratios[0], ratios[1], dpo_options(config_), long_as[0], long_as[1]);  // [B]
  add_pair_figures(sums, config_.beta * ratios[0], config_.beta * ratios[1], logps[0], logps[1], valid);
  add_entropy(sums, found, answers);
  return sum_of_rows(losses, valid);
}

Tensor PreferenceObjective::orpo(const data::Batch& batch, MetricSums& sums) const {
  const Answers answers = split_answers(batch, model_->device());
  const Tensor asked = answers.asked(), lengths = answers.answer_lengths();
  const Tensor valid = lengths.narrow(0, 0, batch.rows) > 0;  // [B]
  // Of chosen texts every token, of rejected ones the answer.
  Tensor targets = answers.targets.clone();
  const Tensor every = answers.all_targets().narrow(0, 0, batch.rows);
  targets.narrow(0, 0, batch.rows).copy_(at::where(valid.unsqueeze(1), every, data::kIgnore));
  const AnswerLogProbs found = answer_log_probs(*model_, answers, targets, /*entropy=*/true);
  const Tensor chosen_tokens = found.tokens.narrow(0, 0, batch.rows);
  const Tensor counted = targets.narrow(0, 0, batch.rows) != data::kIgnore;
  const Tensor nll = -chosen_tokens.sum() / counted.sum().clamp_min(1);
  const auto means = (at::where(asked, found.tokens, 0).sum(1) / lengths.clamp_min(1)).chunk(2);  // [B] each
  const Tensor odds = log_odds_ratio(means[0], means[1]), log_sigmoid = at::log_sigmoid(odds);
  add_pair_figures(sums, config_.beta * means[0], config_.beta * means[1], means[0], means[1], valid);
  add_entropy(sums, found, answers);
  const Figure figures[] = {{"nll_loss", -chosen_tokens.flatten(), counted.flatten()},
                            {"log_odds_ratio", log_sigmoid, valid},
                            {"log_odds_chosen", odds, valid}};
  add_figures(sums, figures);
  return nll * valid.sum() - config_.beta * sum_of_rows(log_sigmoid, valid);
}

Tensor PreferenceObjective::kto(const data::Batch& batch, MetricSums& sums) const {
  const Answers both = split_answers(batch, model_->device());
  const int64_t B = batch.rows;
  const Answers answers = both.part(0, B), others = both.part(B, B);
  const Tensor values = values_of(batch, 3, model_->device());  // [B, 3]
  const Tensor valid = answers.answer_lengths() > 0, wanted = values.select(1, 0) > 0;
  Tensor kl;
  {
    const torch::autograd::AutoGradMode no_grad(false);
    const Tensor mismatched = answer_log_probs(*model_, others, others.targets).sums();
    kl = kto_kl((mismatched - values.select(1, 2)).masked_select(valid));
  }
  const AnswerLogProbs found = answer_log_probs(*model_, answers, answers.targets, /*entropy=*/true);
  const Tensor logps = found.sums(), ratios = logps - values.select(1, 1);
  const Tensor losses = kto_loss(ratios, wanted, kl,
                                 {.beta = config_.beta,
                                  .desirable_weight = config_.desirable_weight,
                                  .undesirable_weight = config_.undesirable_weight});
  const Tensor chosen = at::logical_and(valid, wanted), rejected = at::logical_and(valid, wanted.logical_not());
  const Tensor rewards = config_.beta * ratios.detach();
  const auto mean = [&](const Tensor& of) { return at::where(of, rewards, 0).sum() / of.sum().clamp_min(1); };
  const Tensor margin = mean(chosen) - mean(rejected);
  const Figure figures[] = {
      {"rewards/chosen", rewards, chosen},
      {"rewards/rejected", rewards, rejected},
      {"logps/chosen", logps, chosen},
      {"logps/rejected", logps, rejected},
      {"rewards/margins", margin.view({1}), at::logical_and(chosen.any(), rejected.any()).view({1})},
      {"kl", kl.view({1}), at::ones({1}, valid.options())}};
  add_figures(sums, figures);
  add_entropy(sums, found, answers);
  return sum_of_rows(losses, valid);
}

}  // namespace llmtk::rl
