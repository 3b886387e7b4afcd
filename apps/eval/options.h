#pragma once
// The options of `llmtk eval`'s subcommands. Each is declared once: what changes the numbers also tells one run from
// another.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eval/eval.h"
#include "open_model.h"

namespace llmtk {

/// Options that change what is computed. What add() is given must live as long as this.
class Settings {
 public:
  template <class T>
  CLI::Option* add(CLI::App& app, const std::string& flags, T& value, const std::string& help) {
    return remember(app.add_option(flags, value, help), [&value] { return json_of(value); });
  }
  CLI::Option* add_flag(CLI::App& app, const std::string& flags, bool& value, const std::string& help) {
    return remember(app.add_flag(flags, value, help), [&value] { return Json(value); });
  }
  /// Their values as they are now: {"text_field": "text", ...}.
  Json json() const;

 private:
  template <class T>
  static Json json_of(const T& value) {
    return value;
  }
  template <class T>
  static Json json_of(const std::optional<T>& value) {
    return value ? Json(*value) : Json();
  }
  CLI::Option* remember(CLI::Option* option, std::function<Json()> value);

  std::vector<std::pair<std::string, std::function<Json()>>> values_;
};

/// What all subcommands have.
struct EvalOptions {
  ModelOptions model;
  std::string output;  ///< empty: results are not kept
  int64_t batch_size = 8;
  bool add_special_tokens = true;
  Settings settings;
};
/// Adds those of ModelOptions, --output, --batch-size and --add-special-tokens.
void add_eval_options(CLI::App& app, EvalOptions& options);

/// Adds a subcommand with the options of EvalOptions, `Options::eval`; `run(options, json)` is what it does.
template <class Options>
CLI::App& add_eval_command(CLI::App& app, EvalContext& context, const char* name, const char* help,
                           const std::shared_ptr<Options>& options, int (*run)(Options&, bool)) {
  CLI::App* command = app.add_subcommand(name, help);
  add_eval_options(*command, options->eval);
  command->callback([&context, options, run] {
    context.run = [&context, options, run] { return run(*options, context.common.json); };
  });
  return *command;
}

}  // namespace llmtk
