#pragma once
// What every command shares: the common options, and the one place where errors become messages and exit codes.

#include <CLI/CLI.hpp>
#include <functional>
#include <initializer_list>
#include <string>

namespace llmtk {

struct CommonOptions {
  bool json = false;
  std::string log_level = "info";
};

/// "0.1.0".
std::string version();

/// Adds --json, --log-level and --version. `examples` is shown at the end of --help.
void add_common_options(CLI::App& app, CommonOptions& options, const std::string& examples);

/// Throws Error(usage) for the first of `flags` that the command line gives: an option without influence is a mistake
/// of its user. because: "with --json".
void refuse_idle(const CLI::App& app, std::initializer_list<const char*> flags, const std::string& because);

/// Parses the command line, applies the common options, runs `body` and turns whatever it throws into a message on
/// stderr and an exit code. With --json an error is also one JSON object on stdout: {"error": {...}, "exit_code": N}.
int run_app(CLI::App& app, CommonOptions& options, int argc, char** argv, const std::function<int()>& body);

}  // namespace llmtk
