#include "rl/grpo_config.h"

namespace llmtk::rl {

void GrpoConfig::validate(config::Problems& problems) const {
  ResponseEndConfig::validate(problems);
  const double high = epsilon_high.value_or(epsilon);
  if (delta && *delta <= 1 + high)
    problems.add("delta", {.what = "is not above what the ratio is clipped to", .expected = "above 1 + epsilon_high"});
  if (delta && importance_sampling_level == "sequence")
    problems.add("delta", {.what = "bounds ratios of tokens", .hint = "leave it out, or set importance_sampling_level to token"});
  if (mask_truncated_completions && stop_token == "none" && !stop_token_id)
    problems.add("mask_truncated_completions", {.what = "would mask all: nothing ends a response before its greatest length",
                                                .hint = "leave it out, or set stop_token"});
}

}  // namespace llmtk::rl
