#include "rl/response_config.h"

namespace llmtk::rl {

void ResponseEndConfig::validate(config::Problems& problems) const {
  if (stop_token_id && stop_token != ResponseEndConfig().stop_token)
    problems.add("stop_token_id", {.what = "given together with stop_token", .expected = "one of the two"});
}

void RewardSourceConfig::validate(config::Problems& problems) const {
  const RewardSourceConfig defaults;
  const auto belongs = [&](const char* key, bool given, bool fits, bool needed) {
    if (given && !fits) problems.add(key, {.what = "has no effect with type " + type, .hint = "leave it out"});
    if (!given && needed) problems.add("type", {.what = type + " needs the key '" + key + "'"});
  };
  const bool matches = type == "exact_match", is_command = type == "command", is_model = type == "model";
  belongs("column", column != defaults.column, matches, false);
  belongs("pattern", !pattern.empty(), matches || type == "regex", type == "regex");
  belongs("characters", !characters.empty(), type == "characters", type == "characters");
  belongs("target_length", target_length != 0, type == "length", type == "length");
  belongs("command", !command.empty(), is_command, is_command);
  belongs("timeout", timeout != defaults.timeout, is_command, false);
  belongs("model", !model.empty(), is_model, is_model);
  belongs("min_accuracy", min_accuracy.has_value(), is_model, false);
}

}  // namespace llmtk::rl
