// llmtk lora: adapters of low rank.

#include "app.h"
#include "lora_merge.h"

int main(int argc, char** argv) {
  CLI::App app("Adapters of low rank: LoRA and its kin", "llmtk lora");
  llmtk::CommonOptions common;
  std::function<int()> run;
  llmtk::add_common_options(app, common,
                            "  llmtk lora merge --model gpt2 --adapter runs/poems --output gpt2-poems\n"
                            "  llmtk lora merge --help");
  app.require_subcommand(1);
  app.fallthrough();
  llmtk::add_merge_command(app, common, run);
  return llmtk::run_app(app, common, argc, argv, [&] { return run(); });
}
