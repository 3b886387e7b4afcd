#pragma once
// llmtk lora merge.

#include <functional>

#include "app.h"

namespace llmtk {

/// Adds the subcommand; `run` becomes what it does when the command line chooses it.
void add_merge_command(CLI::App& app, const CommonOptions& common, std::function<int()>& run);

}  // namespace llmtk
