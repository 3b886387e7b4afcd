#pragma once
// The parts of `llmtk eval`: each subcommand is added by a function of its own file.

#include <functional>
#include <nlohmann/json.hpp>

#include "app.h"

namespace llmtk {

using Json = nlohmann::ordered_json;

/// What the subcommands share: the common options, and the subcommand that the command line chose.
struct EvalContext {
  CommonOptions common;
  std::function<int()> run;
};

void add_perplexity_command(CLI::App& app, EvalContext& context);
void add_score_command(CLI::App& app, EvalContext& context);
void add_choice_command(CLI::App& app, EvalContext& context);
void add_classify_command(CLI::App& app, EvalContext& context);

}  // namespace llmtk
