#pragma once
// A reward model as `llmtk rlhf-reward` teaches it, and what its folder says of how good it is.

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "rl/reward_config.h"
#include "teaching.h"

namespace llmtk {

/// In a reward model's folder: {"format", "version", "accuracy", "margin", "pairs"} of held-out pairs.
inline constexpr const char* kRewardEvaluationFile = "reward_evaluation.json";

std::unique_ptr<Teaching> teach_rewards(const rl::RewardConfig& config);

}  // namespace llmtk
