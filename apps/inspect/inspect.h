#pragma once
// The parts of `llmtk inspect`: each subcommand is added by a function of its own file.

#include <functional>
#include <nlohmann/json.hpp>

#include "app.h"

namespace llmtk {

using Json = nlohmann::ordered_json;

/// What the subcommands share: the common options, and the subcommand that the command line chose.
struct InspectContext {
  CommonOptions common;
  std::function<int()> run;
};

void add_params_command(CLI::App& app, InspectContext& context);
void add_checkpoint_command(CLI::App& app, InspectContext& context);
void add_logits_command(CLI::App& app, InspectContext& context);
void add_hidden_command(CLI::App& app, InspectContext& context);
void add_attention_command(CLI::App& app, InspectContext& context);

/// One object on one line of stdout.
void print_json(const Json& json);

}  // namespace llmtk
