#include "rl/policy.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "data/batch.h"
#include "kernels/cross_entropy.h"
#include "nn/init.h"

namespace llmtk::rl {
namespace {

/// before: [B, R, H], what stands before each token of a response.
Readings read_tokens(nn::CausalModel& model, const ResponseBatch& batch, const at::Tensor& before, double temperature,
                     bool entropy) {
  const kernels::LogProbs found =
      model.log_probs(before.flatten(0, 1), batch.responses(data::kIgnore).flatten(),
                      {.ignore_index = data::kIgnore, .temperature = temperature, .entropy = entropy});
  Readings readings{.log_probs = found.log_probs.view({-1, batch.longest})};
  if (entropy) readings.entropies = found.entropies.view({-1, batch.longest});
  return readings;
}

}  // namespace

at::Tensor ResponseBatch::up_to(int64_t more) const {
  return at::arange(longest, lengths.options()).unsqueeze(0) < (lengths + more).unsqueeze(1);  // [B, R]
}

at::Tensor ResponseBatch::responses(int64_t fill) const {
  const at::Tensor places = prompt_lengths.unsqueeze(1) + at::arange(longest, lengths.options());  // [B, R]
  return ids.gather(1, places.clamp_max(ids.size(1) - 1)).masked_fill(mask().logical_not(), fill);
}

ResponseBatch ResponseBatch::rows(const at::Tensor& index) const {
  ResponseBatch part{.prompt_lengths = prompt_lengths.index_select(0, index),
                     .lengths = lengths.index_select(0, index),
                     .longest = longest};
  const int64_t T = (part.prompt_lengths + part.lengths).max().item<int64_t>();
  part.ids = ids.index_select(0, index).narrow(1, 0, T);
  return part;
}

at::Tensor ResponseBatch::before_responses(const at::Tensor& hidden) const {
  const at::Tensor places = (prompt_lengths - 1).unsqueeze(1) + at::arange(longest, lengths.options());  // [B, R]
  const at::Tensor last = (prompt_lengths + lengths - 1).unsqueeze(1);                                   // [B, 1]
  return hidden.gather(1, at::min(places, last).unsqueeze(2).expand({-1, -1, hidden.size(2)}));          // [B, R, H]
}

Readings read_policy(nn::CausalModel& model, const ResponseBatch& batch, double temperature, bool entropy) {
  return read_tokens(model, batch, batch.before_responses(model.forward(batch.ids)), temperature, entropy);
}

at::Tensor response_log_probs(nn::CausalModel& model, const ResponseBatch& batch, double temperature) {
  return read_policy(model, batch, temperature, /*entropy=*/false).log_probs;
}

PolicyAndValue::PolicyAndValue(std::shared_ptr<nn::CausalModel> policy,
                               std::shared_ptr<nn::DecoderClassifier> value_model)
    : policy_(std::move(policy)), value_model_(std::move(value_model)) {
  register_module("policy", policy_);
  if (value_model_) {
    LLMTK_CHECK(value_model_->num_labels() == 1, value_model_->num_labels(), " labels of a value model");
    register_module("value_model", value_model_);
    return;
  }
  const nn::Build build{.dtype = at::kFloat, .device = policy_->device()};
  value_head_ = register_module("value_head", std::make_shared<nn::Linear>(policy_->lm_head().in_features(), 1,
                                                                           nn::Linear::Options{.bias = false}, build));
  nn::init_constant(value_head_->weight, 0);
}

Readings PolicyAndValue::read(const ResponseBatch& batch, double temperature, bool entropy) {
  const at::Tensor before = batch.before_responses(policy_->forward(batch.ids));  // [B, R, H]
  Readings readings = read_tokens(*policy_, batch, before, temperature, entropy);
  at::Tensor values;  // [B, R, 1]
  if (value_model_)
    values = value_model_->scores(batch.before_responses(value_model_->forward(batch.ids)));
  else
    values = value_head_->forward(before.to(value_head_->weight.scalar_type()));
  readings.values = values.squeeze(2).to(at::kFloat).masked_fill(batch.value_mask().logical_not(), 0);
  return readings;
}

const torch::nn::Module& PolicyAndValue::value() const {
  if (value_model_) return *value_model_;
  return *value_head_;
}

}  // namespace llmtk::rl
