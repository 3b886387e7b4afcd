// llmtk finetune: a model learns a task, whole or by a method that trains little beside it.

#include "finetuning.h"
#include "finetuning_methods.h"

namespace {

constexpr const char* kExamples =
    "  llmtk finetune configs/finetune/sst2-minilm.yaml\n"
    "  llmtk finetune my.yaml optimizer.learning_rate=2e-5 trainer.num_train_epochs=2\n"
    "  llmtk finetune my.yaml --dry-run                            checks config, data, memory and disk\n"
    "  llmtk finetune my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk finetune --config-help                                every key, its default and what it does\n";

}  // namespace

int main(int argc, char** argv) {
  return llmtk::training_program<llmtk::FinetuneConfig>(
      argc, argv, "llmtk finetune",
      "Fine-tunes a model: texts, instructions and chats, pairs, classes of texts and of words.", kExamples,
      [](const auto& config, auto places) { return llmtk::make_finetuning(config, std::move(places)); });
}
