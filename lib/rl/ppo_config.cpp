#include "rl/ppo_config.h"

namespace llmtk::rl {

void PpoConfig::validate(config::Problems& problems) const {
  ResponseEndConfig::validate(problems);
  if (missing_eos_penalty && stop_token == "none")
    problems.add("missing_eos_penalty", {.what = "has no effect without a stop token", .hint = "leave it out"});
  if (!adaptive_kl_target && kl_horizon != PpoConfig().kl_horizon)
    problems.add("kl_horizon", {.what = "has no effect without ppo.adaptive_kl_target", .hint = "leave it out"});
  if (adaptive_kl_target && kl_coef == 0)
    problems.add("kl_coef", {.what = "ppo.adaptive_kl_target multiplies it: 0 stays 0", .expected = "above 0"});
}

}  // namespace llmtk::rl
