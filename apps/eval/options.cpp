#include "eval/options.h"

#include <algorithm>

namespace llmtk {

Json Settings::json() const {
  Json json = Json::object();
  for (const auto& [name, value] : values_) json[name] = value();
  return json;
}

CLI::Option* Settings::remember(CLI::Option* option, std::function<Json()> value) {
  std::string name = option->get_lnames().front();
  std::ranges::replace(name, '-', '_');
  values_.emplace_back(std::move(name), std::move(value));
  return option;
}

void add_eval_options(CLI::App& app, EvalOptions& options) {
  add_model_options(app, options.model);
  app.add_option("-o,--output", options.output,
                 "JSON lines to keep every result in; a run that was stopped goes on from there");
  app.add_option("--batch-size", options.batch_size, "Rows that run together")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  options.settings.add_flag(app, "--add-special-tokens,!--no-add-special-tokens", options.add_special_tokens,
                            "Whether the tokenizer puts its own special tokens (bos) around a text; default: yes");
}

}  // namespace llmtk
