#include "rl/grpo.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "rl/advantages.h"
#include "rl/policy_losses.h"

namespace llmtk::rl {
namespace {

ScaleRewards parse_scale(const std::string& name) {
  if (name == "group") return ScaleRewards::group;
  return name == "batch" ? ScaleRewards::batch : ScaleRewards::none;
}

int64_t steps_per_generation(const GrpoConfig& config, const train::TrainerConfig& trainer) {
  return config.steps_per_generation > 0 ? config.steps_per_generation : trainer.gradient_accumulation_steps;
}

}  // namespace

int64_t grpo_batch_size(const GrpoConfig& config, const train::TrainerConfig& trainer) {
  return trainer.per_device_train_batch_size * steps_per_generation(config, trainer);
}

PolicyPlan grpo_plan(const GrpoConfig& config, const train::TrainerConfig& trainer, size_t prompts,
                     const text::Tokenizer& tokenizer) {
  PolicyPlan plan{.responses = grpo_batch_size(config, trainer),
                  .group_size = config.num_generations,
                  .passes = config.num_iterations,
                  .steps_per_pass = steps_per_generation(config, trainer) / trainer.gradient_accumulation_steps,
                  .at_once = config.local_rollout_forward_batch_size,
                  .num_samples = config.num_samples};
  const auto rounded_up = [](int64_t all, int64_t each) { return (all + each - 1) / each; };
  const int64_t episodes = trainer.num_train_epochs * static_cast<int64_t>(prompts) * config.num_generations;
  plan.batches = trainer.max_steps > 0 ? rounded_up(trainer.max_steps, plan.steps_per_batch())
                                       : rounded_up(episodes, plan.responses);
  plan.max_steps = trainer.max_steps;
  plan.sampling.do_sample = true;
  plan.sampling.temperature = config.temperature;
  plan.sampling.top_p = config.top_p;
  plan.sampling.top_k = config.top_k;
  if (config.min_p) plan.sampling.min_p = *config.min_p;
  plan.sampling.repetition_penalty = config.repetition_penalty;
  plan.sampling.max_new_tokens = config.max_completion_length;
  plan.sampling.seed = static_cast<uint64_t>(trainer.seed);
  set_stop_tokens(plan.sampling, config, tokenizer);
  return plan;
}

Grpo::Grpo(const GrpoConfig& config, std::shared_ptr<nn::CausalModel> policy, ReferenceLogProbs reference,
           bool keeps_log_probs)
    : config_(config), policy_(std::move(policy)), reference_(std::move(reference)), keeps_log_probs_(keeps_log_probs) {
  LLMTK_CHECK((config.beta > 0) == static_cast<bool>(reference_), "a reference and its coefficient belong together");
}

void Grpo::collect(Rollout& rollout, const std::vector<at::Tensor>& parts) {
  const c10::NoGradGuard no_gradients;
  if (keeps_log_probs_)
    rollout.log_probs = read_in_parts(rollout.batch, parts, [&](const ResponseBatch& part) {
      const c10::AutoGradMode as_when_learning(true);
      return response_log_probs(*policy_, part, config_.temperature).detach();
    });
  if (reference_) rollout.reference = read_in_parts(rollout.batch, parts, reference_);
  rollout.advantages = group_advantages(rollout.scores, config_.num_generations, parse_scale(config_.scale_rewards));
  if (config_.mask_truncated_completions) rollout.counted = rollout.ended;
}

PolicyMethod::Json Grpo::objective(const Rollout& rollout) const {
  const at::Tensor lengths = rollout.batch.lengths.to(at::kDouble), scores = rollout.scores.to(at::kDouble);
  const bool by_batch = config_.scale_rewards == "batch";
  const at::Tensor deviations = by_batch ? scores.std().unsqueeze(0) : scores.view({-1, config_.num_generations}).std(1);
  const at::Tensor terminated = lengths.masked_select(rollout.ended);
  const auto number = [](const at::Tensor& scalar) { return scalar.item<double>(); };
  return {{"reward", number(scores.mean())},
          {"reward_std", number(scores.std())},
          {"frac_reward_zero_std", number((deviations < 1e-8).to(at::kDouble).mean())},
          {"completions/mean_length", number(lengths.mean())},
          {"completions/min_length", number(lengths.min())},
          {"completions/max_length", number(lengths.max())},
          {"completions/clipped_ratio", 1 - number(rollout.ended.to(at::kDouble).mean())},
          {"completions/mean_terminated_length", terminated.numel() ? number(terminated.mean()) : 0.0}};
}

at::Tensor Grpo::loss(const Rollout& rollout, const at::Tensor& rows, const StepSize& step, train::MetricSums& sums,
                      double& ratio_error) {
  const auto of_rows = [&](const at::Tensor& values) {
    return values.defined() ? values.index_select(0, rows) : at::Tensor();
  };
  const ResponseBatch batch = rollout.batch.rows(rows);
  const at::Tensor mask = of_rows(rollout.mask());
  const Readings now = read_policy(*policy_, batch, config_.temperature, /*entropy=*/true);
  const at::Tensor before = rollout.log_probs.defined() ? of_rows(rollout.log_probs) : now.log_probs.detach();
  GrpoOptions options{.epsilon_low = config_.epsilon,
                      .epsilon_high = config_.epsilon_high.value_or(config_.epsilon),
                      .delta = config_.delta,
                      .beta = config_.beta,
                      .sequence_level = config_.importance_sampling_level == "sequence",
                      .mean = parse_grpo_loss(config_.loss_type),
                      .max_completion_length = config_.max_completion_length,
                      .num_items = std::max(step.tokens, 1.0)};
  double share = 1;  // of the step's mean, where the loss is one of these rows
  switch (options.mean) {
    case GrpoOptions::Mean::dapo:  // a token of the batch counts as much in each of its steps
      options.num_items = std::max(step.batch_tokens * step.responses / static_cast<double>(rollout.size()), 1.0);
      break;
    case GrpoOptions::Mean::bnpo:  // the sum over the step's tokens too
      options.mean = GrpoOptions::Mean::dapo;
      break;
    default:
      share = static_cast<double>(rows.size(0)) / step.responses;
  }
  const GrpoLoss found =
      grpo_loss(now.log_probs, before, of_rows(rollout.reference), of_rows(rollout.advantages), mask, options);

  const at::Tensor n = mask.sum().to(at::kFloat), error = ((now.log_probs.detach() - before).exp() - 1).abs().max();
  const at::Tensor none = at::zeros({}, n.options());
  const at::Tensor host = at::stack({n, error, found.clipped_low, found.clipped_high,
                                     masked_mean(now.entropies, mask).detach(), found.kl.defined() ? found.kl : none})
                              .to(at::kDouble)
                              .cpu();
  const double* number = host.const_data_ptr<double>();
  ratio_error = std::max(ratio_error, number[1]);
  if (number[0] > 0) {
    const auto add = [&](const char* name, double mean, double weight) { sums.add(name, mean * weight, weight); };
    const double ratios = options.sequence_level ? static_cast<double>(rows.size(0)) : number[0];
    add("clip_ratio/low_mean", number[2], ratios);
    add("clip_ratio/high_mean", number[3], ratios);
    add("clip_ratio/region_mean", number[2] + number[3], ratios);
    add("entropy", number[4], number[0]);
    if (config_.beta > 0) add("kl", number[5], number[0]);
  }
  return found.loss * share;
}

std::vector<std::pair<const char*, const char*>> Grpo::headline() const {
  std::vector<std::pair<const char*, const char*>> line = {{"reward", "reward"}, {"deviation", "reward_std"}};
  if (config_.beta > 0) line.emplace_back("kl", "kl");
  line.emplace_back("clipped", "clip_ratio/region_mean");
  line.emplace_back("entropy", "entropy");
  line.emplace_back("length", "completions/mean_length");
  return line;
}

}  // namespace llmtk::rl
