#pragma once
// A batch of responses and what PPO learns from them.

#include <functional>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/tensors.h"
#include "rl/policy.h"
#include "rl/ppo_config.h"
#include "rl/rewards.h"

namespace llmtk::rl {

/// B responses, R tokens of the longest; all of the second part [B, R] float32, 0 at padding.
struct Rollout {
  ResponseBatch batch;
  at::Tensor scores;  ///< [B] float32: what each response is worth, penalties included

  at::Tensor log_probs;  ///< of the policy that wrote them
  at::Tensor reference;  ///< of the reference
  at::Tensor values;     ///< at batch.value_mask()
  at::Tensor advantages, returns;

  int64_t size() const { return batch.ids.size(0); }
  /// For a checkpoint in the middle of it.
  io::NamedTensors tensors() const;
  /// Throws Error(file) naming `where` where one is missing.
  static Rollout from_tensors(const io::NamedTensors& tensors, c10::Device device, const std::string& where);
};

/// Texts as one batch.
ResponseBatch make_batch(std::span<const Response> responses, c10::Device device);

/// The model without what it has learnt: under a disabled adapter, or another one.
using ReferenceLogProbs = std::function<at::Tensor(const ResponseBatch& batch)>;

/// What policy and reference say of the responses, some at a time, and from it and from the scores rewards, advantages
/// and returns, as TRL's PPOTrainer has them. kl_coef: as it is now. No gradients.
Rollout make_rollout(const PpoConfig& config, double kl_coef, PolicyAndValue& model, const ReferenceLogProbs& reference,
                     ResponseBatch batch, at::Tensor scores);

/// objective/kl, objective/entropy, objective/non_score_reward, objective/rlhf_reward, objective/scores: of whole
/// responses, means over them.
nlohmann::ordered_json objective_figures(const PpoConfig& config, double kl_coef, const Rollout& rollout);

}  // namespace llmtk::rl
