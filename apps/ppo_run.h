#pragma once
// A PPO run: config -> policy, reference, values, rewards, prompts -> loop -> save.

#include <memory>

#include "ppo_config.h"
#include "training.h"

namespace llmtk {

std::unique_ptr<TrainingCommand> make_ppo(PpoRunConfig config, config::Places places);

}  // namespace llmtk
