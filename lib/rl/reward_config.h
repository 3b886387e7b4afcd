#pragma once
// The `reward` section of a config, in the words of TRL's RewardConfig.

#include <optional>

#include "config/config.h"

namespace llmtk::rl {

struct RewardConfig {
  std::optional<double> center_rewards_coefficient;
  bool disable_dropout = true;

  template <class V>
  void fields(V& v) {
    v("center_rewards_coefficient", center_rewards_coefficient,
      "Weight of (chosen + rejected)^2, which keeps rewards around 0, as 0.01; left out: they lie where they will",
      config::above(0));
    v("disable_dropout", disable_dropout, "Train without dropout");
  }
};

}  // namespace llmtk::rl
