// llmtk grpo: a policy learns from rewards, by comparing its own responses.

#include "policy_run.h"

using namespace llmtk;

namespace {

constexpr const char* kExamples =
    "  llmtk grpo configs/grpo/arithmetic.yaml\n"
    "  llmtk grpo my.yaml grpo.num_generations=16 grpo.beta=0.04\n"
    "  llmtk grpo my.yaml --dry-run                            checks config, prompts and reward models\n"
    "  llmtk grpo my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk grpo --config-help                                every key, its default and what it does\n";

}  // namespace

int main(int argc, char** argv) {
  return llmtk::training_program<GrpoRunConfig>(
      argc, argv, "llmtk grpo",
      "GRPO: a policy writes several responses to each prompt, rewards say which are better than the others, and it learns.",
      kExamples, [](GrpoRunConfig config, auto places) { return make_grpo(std::move(config), std::move(places)); });
}
