// llmtk lora: adapters of low rank, trained and merged.

#include "app.h"
#include "core/error.h"
#include "finetuning.h"
#include "lora_merge.h"
#include "lora_method.h"

namespace {

constexpr const char* kExamples =
    "  llmtk lora configs/lora/gsm8k-smollm2.yaml\n"
    "  llmtk lora my.yaml lora.r=16 quantization.load_in_4bit=true\n"
    "  llmtk lora my.yaml --dry-run                            checks config, data, memory and disk\n"
    "  llmtk lora my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk lora --config-help                                every key, its default and what it does\n"
    "  llmtk lora merge --adapter runs/gsm8k --output merged   multiplies the adapter into its base\n";

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains adapters of low rank: LoRA, rsLoRA, DoRA, LoRA+, PiSSA, QLoRA; merges them.", "llmtk lora");
  llmtk::CommonOptions common;
  llmtk::TrainingOptions training;
  std::function<int()> merge;
  llmtk::add_training_options(app, training);
  llmtk::add_common_options(app, common, kExamples);
  app.require_subcommand(0, 1);
  app.fallthrough();
  llmtk::add_merge_command(app, common, merge);
  return llmtk::run_app(app, common, argc, argv, [&] {
    if (!merge)
      return llmtk::training_main<llmtk::LoraRunConfig>(
          training, common, "llmtk lora",
          [](const auto& config, auto places) { return llmtk::make_finetuning(config, std::move(places)); });
    if (!training.path.empty())
      throw llmtk::Error(llmtk::Exit::usage,
                         {.what = "merge takes no config", .got = training.path, .hint = "leave it out"});
    return merge();
  });
}
