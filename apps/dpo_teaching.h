#pragma once
// Preferences as `llmtk dpo` teaches them.

#include <cstdint>
#include <memory>

#include "rl/dpo_config.h"
#include "teaching.h"

namespace llmtk {

/// eval_batch_size: rows that the reference reads at a time where the config leaves it open.
std::unique_ptr<Teaching> teach_preferences(const rl::DpoConfig& config, int64_t eval_batch_size);

}  // namespace llmtk
