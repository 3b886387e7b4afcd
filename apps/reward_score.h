#pragma once
// llmtk rlhf-reward score: what a reward model says of texts in a file.

#include <functional>

#include "app.h"

namespace llmtk {

/// Adds the subcommand; `run` is set where it was called.
void add_score_command(CLI::App& app, const CommonOptions& common, std::function<int()>& run);

}  // namespace llmtk
