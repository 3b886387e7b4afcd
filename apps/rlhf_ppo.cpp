// llmtk rlhf-ppo: a policy learns from rewards, by PPO.

#include "policy_run.h"

using namespace llmtk;

namespace {

constexpr const char* kExamples =
    "  llmtk rlhf-ppo configs/rlhf-ppo/capitals.yaml\n"
    "  llmtk rlhf-ppo my.yaml ppo.kl_coef=0.1 ppo.value_model=own\n"
    "  llmtk rlhf-ppo my.yaml --dry-run                            checks config, prompts and reward models\n"
    "  llmtk rlhf-ppo my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk rlhf-ppo --config-help                                every key, its default and what it does\n";

}  // namespace

int main(int argc, char** argv) {
  return llmtk::training_program<PpoRunConfig>(
      argc, argv, "llmtk rlhf-ppo",
      "PPO: a policy writes responses, rewards (rules, programs, reward models) say what they are worth, and it learns.",
      kExamples, [](PpoRunConfig config, auto places) { return make_ppo(std::move(config), std::move(places)); });
}
