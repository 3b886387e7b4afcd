#pragma once
// The rewards of a config, opened.

#include <c10/core/Device.h>

#include <memory>
#include <vector>

#include "nn/model.h"
#include "rl/rewards.h"
#include "text/tokenizer.h"

namespace llmtk {

/// What can be known of rewards before they are opened; returns the parameters of their models. longest: tokens of a
/// prompt with its response at most. Throws Error(usage) for a pattern that is none, for a model that is no reward model,
/// that cannot read so much, or of another tokenizer than the policy's; Error(bound) for one whose held-out accuracy is
/// below what the config asks for; warns where its folder says nothing of it.
int64_t check_rewards(const std::vector<rl::RewardSourceConfig>& configs, const text::Tokenizer& tokenizer,
                      int64_t longest);

rl::Rewards open_rewards(const std::vector<rl::RewardSourceConfig>& configs, c10::ScalarType dtype, c10::Device device,
                         int64_t batch_size);

}  // namespace llmtk
