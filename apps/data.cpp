// llmtk data: what a model will really see of a fine-tuning config's data.

#include <unistd.h>

#include <cstdlib>
#include <iostream>

#include "app.h"
#include "core/error.h"
#include "data_config.h"
#include "data_show.h"
#include "finetuning_setup.h"

using namespace llmtk;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kExamples =
    "  llmtk data configs/finetune/gsm8k.yaml                  the first rows, and what there is of all\n"
    "  llmtk data my.yaml --rows 5 --from 100 --ids            token by token\n"
    "  llmtk data my.yaml --json data.packing=true | jq .train.packing\n"
    "  llmtk data my.yaml --validation --color always | less -R\n";

struct Options {
  CommonOptions common;
  std::string path, color = "auto";
  std::vector<std::string> overrides;
  uint64_t rows = 3, from = 1;
  bool ids = false, validation = false;
};

Json described(const FinetuningSetup& setup, bool packed) {
  const auto& data = setup.rows;
  Json json = {{"objective", to_string(setup.objective)}, {"max_length", data.max_length}};
  if (!data.problem_type.empty()) json["problem_type"] = data.problem_type;
  if (!data.label_names.empty()) json["label_names"] = data.label_names;
  json["train"] = describe_rows(*data.train_rows, data.train_statistics, data, packed);
  if (data.validation_rows)
    json["validation"] = describe_rows(*data.validation_rows, data.validation_statistics, data, false);
  json["sources"] = data.description.at("sources");
  return json;
}

bool in_color(const std::string& color) {
  const char* no_color = std::getenv("NO_COLOR");
  return color == "always" || (color == "auto" && ::isatty(STDOUT_FILENO) && !(no_color && *no_color));
}

int run(const Options& options) {
  if (options.path.empty()) throw Error(Exit::usage, {.what = "which config?", .hint = "llmtk data CONFIG.yaml"});
  config::Places places;
  auto config = config::load<DataCommandConfig>(options.path, options.overrides, &places);
  complete(config);
  if (!config.tokenizer.given())
    throw Error(Exit::usage, {.what = "no tokenizer is named", .hint = "set tokenizer.name_or_path"});
  const auto method = method_of(config);
  const auto teaching = teaching_of(config);
  FinetuningSetup opened(config, places, *method, teaching.get());
  opened.open_model();
  opened.open_data(*dist::single_process());
  if (options.validation && !opened.rows.validation_rows)
    throw Error(Exit::usage, {.what = "--validation, but the config holds nothing out",
                              .where = options.path,
                              .hint = "set data.validation or data.validation_fraction"});
  const auto& rows = *(options.validation ? opened.rows.validation_rows : opened.rows.train_rows);
  if (options.rows > 0 && options.from > rows.rows())
    throw Error(Exit::usage, {.what = "--from is behind the last row",
                              .got = std::to_string(options.from),
                              .expected = "at most " + std::to_string(rows.rows())});
  const uint64_t end = std::min(rows.rows(), options.from - 1 + options.rows);
  Json json = described(opened, config.data.packing);
  if (options.common.json) {
    json["rows"] = Json::array();
    for (uint64_t row = options.from - 1; row < end; ++row)
      json["rows"].push_back(json_of_row(rows, row, *opened.tokenizer));
    std::cout << json.dump() << '\n';
    return 0;
  }
  const ShowOptions show{.objective = opened.objective, .color = in_color(options.color), .ids = options.ids};
  for (uint64_t row = options.from - 1; row < end; ++row)
    std::cout << show_row(rows, row, opened.rows.label_names, *opened.tokenizer, show);
  for (const char* part : {"train", "validation"})
    if (json.contains(part)) std::cout << show_description(part, json[part]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Shows what a model will really see: rendered rows, what of them is trained on, what is cut or left out.",
      "llmtk data");
  Options options;
  app.add_option("config", options.path, "The YAML file of a fine-tuning run");
  app.add_option("overrides", options.overrides, "section.key=value, over what the file says");
  app.add_option("--rows", options.rows, "How many rows to show; 0: none")->capture_default_str();
  app.add_option("--from", options.from, "The first row to show, from 1")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_flag("--validation", options.validation, "Show rows that are held out");
  app.add_flag("--ids", options.ids, "Each token with its id");
  app.add_option("--color", options.color, "What is trained on in green; else it stands between \u27E6 and \u27E7")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->capture_default_str();
  add_common_options(app, options.common, kExamples);
  app.footer(std::string("Exits 3 where nothing would be trained on.\n\nExamples:\n") + kExamples);
  return run_app(app, options.common, argc, argv, [&] {
    if (options.common.json) refuse_idle(app, {"--ids", "--color"}, "with --json, which holds them");
    if (options.rows == 0) refuse_idle(app, {"--ids", "--color", "--from", "--validation"}, "with --rows 0");
    return run(options);
  });
}
