#include "rl/rollout.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "core/error.h"
#include "rl/advantages.h"
#include "rl/kl.h"

namespace llmtk::rl {
namespace {

/// One list of names for both directions.
template <class R, class Visit>
void visit_rollout(R& rollout, Visit&& v) {
  v("ids", rollout.batch.ids);
  v("prompt_lengths", rollout.batch.prompt_lengths);
  v("lengths", rollout.batch.lengths);
  v("scores", rollout.scores);
  v("log_probs", rollout.log_probs);
  v("reference", rollout.reference);
  v("values", rollout.values);
  v("advantages", rollout.advantages);
  v("returns", rollout.returns);
}

at::Tensor kl_of(const PpoConfig& config, const Rollout& rollout) {
  return kl_estimate(rollout.log_probs, rollout.reference, parse_kl_estimator(config.kl_estimator));
}

}  // namespace

io::NamedTensors Rollout::tensors() const {
  io::NamedTensors tensors;
  visit_rollout(*this, [&](const char* name, const at::Tensor& tensor) { tensors.emplace_back(name, tensor); });
  return tensors;
}

Rollout Rollout::from_tensors(const io::NamedTensors& tensors, c10::Device device, const std::string& where) {
  Rollout rollout;
  visit_rollout(rollout, [&](const char* name, at::Tensor& tensor) {
    const auto found = std::ranges::find(tensors, name, &io::NamedTensors::value_type::first);
    if (found == tensors.end())
      throw Error(Exit::file, {.what = std::string("tensor '") + name + "' is missing", .where = where});
    tensor = found->second.clone().to(device);
  });
  rollout.batch.longest = rollout.log_probs.size(1);
  return rollout;
}

ResponseBatch make_batch(std::span<const Response> responses, c10::Device device) {
  const auto B = static_cast<int64_t>(responses.size());
  ResponseBatch batch{.prompt_lengths = at::empty({B}, at::kLong), .lengths = at::empty({B}, at::kLong)};
  int64_t T = 1;
  for (const Response& response : responses) {
    T = std::max(T, static_cast<int64_t>(response.prompt->ids.size() + response.ids.size()));
    batch.longest = std::max(batch.longest, static_cast<int64_t>(response.ids.size()));
  }
  batch.ids = at::zeros({B, T}, at::kLong);
  for (int64_t b = 0; b < B; ++b) {
    const Response& response = responses[static_cast<size_t>(b)];
    int64_t* ids = std::ranges::copy(response.prompt->ids, batch.ids.mutable_data_ptr<int64_t>() + b * T).out;
    std::ranges::copy(response.ids, ids);
    batch.prompt_lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(response.prompt->ids.size());
    batch.lengths.mutable_data_ptr<int64_t>()[b] = static_cast<int64_t>(response.ids.size());
  }
  for (at::Tensor* tensor : {&batch.ids, &batch.prompt_lengths, &batch.lengths}) *tensor = tensor->to(device);
  return batch;
}

Rollout make_rollout(const PpoConfig& config, double kl_coef, PolicyAndValue& model, const ReferenceLogProbs& reference,
                     ResponseBatch batch, at::Tensor scores) {
  const c10::NoGradGuard no_gradients;
  Rollout out{.batch = std::move(batch), .scores = std::move(scores)};
  const int64_t B = out.size(), most = config.local_rollout_forward_batch_size;
  std::vector<at::Tensor> log_probs, of_reference, values;
  for (int64_t begin = 0; begin < B; begin += most) {
    const at::Tensor index = at::arange(begin, std::min(B, begin + most), out.batch.lengths.options());
    const ResponseBatch part = out.batch.rows(index);
    const Readings readings = model.read(part, config.temperature, /*entropy=*/false);
    log_probs.push_back(readings.log_probs);
    values.push_back(readings.values);
    of_reference.push_back(reference(part));
  }
  out.log_probs = at::cat(log_probs);
  out.reference = at::cat(of_reference);
  out.values = at::cat(values);

  const at::Tensor mask = out.batch.mask(), value_mask = out.batch.value_mask();
  at::Tensor rewards = token_rewards(kl_of(config, out), kl_coef, out.scores, out.batch.lengths - 1);
  if (config.whiten_rewards)
    rewards = masked_whiten(rewards, value_mask, /*shift_mean=*/false).masked_fill(value_mask.logical_not(), 0);
  const Advantages found = generalized_advantages(rewards, out.values, config.gamma, config.lam);
  out.advantages = masked_whiten(found.advantages, mask).masked_fill(mask.logical_not(), 0);
  out.returns = found.returns;
  return out;
}

nlohmann::ordered_json objective_figures(const PpoConfig& config, double kl_coef, const Rollout& rollout) {
  const c10::NoGradGuard no_gradients;
  const double kl = kl_of(config, rollout).sum(1).mean().item<double>();
  const double score = rollout.scores.mean().item<double>();
  return {{"objective/kl", kl},
          {"objective/entropy", -rollout.log_probs.sum(1).mean().item<double>()},
          {"objective/non_score_reward", -kl_coef * kl},
          {"objective/rlhf_reward", score - kl_coef * kl},
          {"objective/scores", score}};
}

}  // namespace llmtk::rl
