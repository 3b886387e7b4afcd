#pragma once
// What configs say of responses: where they end, and what they are worth.

#include <cstdint>
#include <optional>
#include <string>

#include "config/config.h"

namespace llmtk::rl {

/// What ends a response, besides its greatest length.
struct ResponseEndConfig {
  std::string stop_token = "eos";
  std::optional<int64_t> stop_token_id;

  template <class V>
  void fields(V& v) {
    v("stop_token", stop_token, "What ends a response: eos, or none (then all have the greatest length)",
      config::one_of({"eos", "none"}));
    v("stop_token_id", stop_token_id, "Another token that ends a response, by its id", config::at_least(0));
  }
  void validate(config::Problems& problems) const;
};

/// One part of the reward: a rule, a program or a model, and how much it counts.
struct RewardSourceConfig {
  std::string type;
  double weight = 1;
  std::string column = "answer";
  std::string pattern;
  std::string characters;
  int64_t target_length = 0;
  std::string command;
  double timeout = 60;
  std::string model;
  std::optional<double> min_accuracy;

  template <class V>
  void fields(V& v) {
    v("type", type,
      "exact_match: 1 where the response is what the row's `column` says; regex: 1 where `pattern` is found in it; "
      "length: how near its characters come to target_length; characters: the share of its characters that are in "
      "`characters`; command: what a program says; model: what a reward model says",
      config::required, config::one_of({"exact_match", "regex", "length", "characters", "command", "model"}));
    v("weight", weight, "What the number is multiplied by before all are added; may be negative");
    v("column", column, "exact_match: the key of a prompt's row that holds the answer", config::not_empty);
    v("pattern", pattern,
      "regex: the expression; exact_match: what of a response is compared, the last place it is found at (default: all of it, "
      "blanks around it left out)");
    v("characters", characters, "characters: the set, as aeiou");
    v("target_length", target_length, "length: 1 at so many characters, falling to 0 at none and at twice as many",
      config::at_least(0));
    v("command", command,
      "command: run by the shell for each batch; it reads JSON lines {prompt, response, and the row's other keys} and "
      "writes a number for each, a line each");
    v("timeout", timeout, "command: seconds that it may take", config::above(0));
    v("model", model, "model: the folder of a sequence classifier with one label");
    v("min_accuracy", min_accuracy, "model: refuse one whose held-out accuracy is below this (exit code 7)",
      config::between(0, 1));
  }
  void validate(config::Problems& problems) const;
};

}  // namespace llmtk::rl
