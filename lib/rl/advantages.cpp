#include "rl/advantages.h"

#include <ATen/ATen.h>

#include "core/error.h"

namespace llmtk::rl {

at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& mask) { return (values * mask).sum() / mask.sum(); }

at::Tensor masked_whiten(const at::Tensor& values, const at::Tensor& mask, bool shift_mean) {
  const int64_t count = mask.sum().item<int64_t>();
  LLMTK_CHECK(count >= 2, count, " values have no variance");
  const at::Tensor mean = masked_mean(values, mask);
  const at::Tensor variance = ((values - mean).square() * mask).sum() / (count - 1);
  const at::Tensor whitened = (values - mean) * (variance + 1e-8).rsqrt();
  return shift_mean ? whitened : whitened + mean;
}

at::Tensor token_rewards(const at::Tensor& kl, double coefficient, const at::Tensor& scores, const at::Tensor& last) {
  const at::Tensor behind = last + 1;
  const at::Tensor place = at::where(behind < kl.size(1), behind, last).unsqueeze(1);  // [B, 1]
  return (kl * -coefficient).scatter_add(1, place, scores.to(kl.scalar_type()).unsqueeze(1));
}

Advantages generalized_advantages(const at::Tensor& rewards, const at::Tensor& values, double gamma, double lambda) {
  LLMTK_CHECK(rewards.dim() == 2 && rewards.sizes() == values.sizes(), "rewards ", rewards.sizes(), ", values ",
              values.sizes());
  const int64_t T = rewards.size(1);
  at::Tensor advantages = at::empty_like(rewards);
  at::Tensor next_value = at::zeros_like(rewards.select(1, 0)), next = next_value;  // [B]
  for (int64_t t = T - 1; t >= 0; --t) {
    const at::Tensor delta = rewards.select(1, t) + gamma * next_value - values.select(1, t);
    next = delta + gamma * lambda * next;
    advantages.select(1, t).copy_(next);
    next_value = values.select(1, t);
  }
  return {advantages, advantages + values};
}

at::Tensor group_advantages(const at::Tensor& rewards, int64_t group_size, ScaleRewards scale) {
  LLMTK_CHECK(rewards.dim() == 1 && group_size >= 1 && rewards.size(0) % group_size == 0, rewards.sizes(),
              " rewards in groups of ", group_size);
  const at::Tensor groups = rewards.view({-1, group_size});  // [B / G, G]
  const at::Tensor centred = groups - groups.mean(1, /*keepdim=*/true);
  if (scale == ScaleRewards::none || group_size == 1) return centred.flatten();
  const at::Tensor deviation = scale == ScaleRewards::batch ? rewards.std() : groups.std(1, /*unbiased=*/true, true);
  return (centred / (deviation + 1e-4)).flatten();
}

}  // namespace llmtk::rl
