#pragma once
// The rewards of a config, opened.

#include <c10/core/Device.h>

#include <memory>
#include <vector>

#include "nn/model.h"
#include "rl/rewards.h"
#include "text/tokenizer.h"

namespace llmtk {

/// What can be known of reward models before they are read. Throws Error(usage) for one of another tokenizer than the
/// policy's, Error(bound) for one whose held-out accuracy is below what the config asks for; warns where its folder
/// says nothing of it.
void check_reward_models(const std::vector<rl::RewardSourceConfig>& configs, const text::Tokenizer& tokenizer);

rl::Rewards open_rewards(const std::vector<rl::RewardSourceConfig>& configs, c10::ScalarType dtype, c10::Device device,
                         int64_t batch_size);

}  // namespace llmtk
