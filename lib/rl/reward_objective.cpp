#include "rl/reward_objective.h"

#include <ATen/ATen.h>

#include "core/error.h"
#include "rl/figures.h"
#include "rl/preference_losses.h"

namespace llmtk::rl {

at::Tensor text_rewards(nn::Model& model, const Answers& texts) {
  const at::Tensor places = at::arange(texts.input_ids.size(1), texts.lengths.options()).unsqueeze(0);  // [1, T]
  const at::Tensor logits =
      model.class_logits({.input_ids = texts.input_ids, .attention_mask = places < texts.lengths.unsqueeze(1)});
  LLMTK_CHECK(logits.size(1) == 1, "a reward model's head has one label, this one ", logits.size(1));
  return logits.squeeze(1).to(at::kFloat);
}

at::Tensor RewardObjective::loss(const data::Batch& batch, double scale, train::MetricSums& sums) const {
  const Answers answers = split_answers(batch, model_->device());
  const at::Tensor rewards = text_rewards(*model_, answers),
                   valid = answers.answer_lengths().narrow(0, 0, batch.rows) > 0;
  const auto halves = rewards.chunk(2);  // [B] each
  at::Tensor margins;
  if (!batch.values.empty()) margins = at::tensor(batch.values).to(rewards.device());
  const at::Tensor losses =
      bradley_terry_loss(halves[0], halves[1], margins, config_.center_rewards_coefficient.value_or(0));
  const Figure figures[] = {{"accuracy", (halves[0] > halves[1]).to(at::kFloat), valid},
                            {"margin", halves[0] - halves[1], valid},
                            {"mean_reward", rewards, valid.repeat({2})}};
  add_figures(sums, figures);
  return at::where(valid, losses, 0).sum() * scale;
}

}  // namespace llmtk::rl
