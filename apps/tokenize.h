#pragma once
// The parts of `llmtk tokenize`: each subcommand is added by a function of its own file.

#include <functional>

#include "app.h"

namespace llmtk {

/// What the subcommands share: the common options, and the subcommand that the command line chose.
struct TokenizeContext {
  CommonOptions common;
  std::function<int()> run;
};

void add_encode_command(CLI::App& app, TokenizeContext& context);
void add_decode_command(CLI::App& app, TokenizeContext& context);
void add_count_command(CLI::App& app, TokenizeContext& context);
void add_train_command(CLI::App& app, TokenizeContext& context);
void add_shard_command(CLI::App& app, TokenizeContext& context);

}  // namespace llmtk
