// llmtk rlhf-reward: a model learns to give texts one number, as people's preferences have it; rates texts.

#include "any_method.h"
#include "app.h"
#include "core/error.h"
#include "finetuning.h"
#include "reward_score.h"
#include "reward_teaching.h"

using namespace llmtk;

namespace {

constexpr const char* kExamples =
    "  llmtk rlhf-reward configs/rlhf-reward/gsm8k-smollm2.yaml\n"
    "  llmtk rlhf-reward my.yaml reward.center_rewards_coefficient=0.01\n"
    "  llmtk rlhf-reward my.yaml --dry-run                            checks config, data, memory and disk\n"
    "  llmtk rlhf-reward my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk rlhf-reward --config-help                                every key, its default and what it does\n"
    "  llmtk rlhf-reward score runs/reward --input answers.jsonl      rates texts\n"
    "  llmtk rlhf-reward score runs/reward --input pairs.jsonl --pairs --json\n";

struct RewardRunConfig : AnyMethodConfig {
  rl::RewardConfig reward;

  RewardRunConfig() { optimizer.learning_rate = 1e-4; }  // RewardConfig's

  template <class V>
  void fields(V& v) {
    AnyMethodConfig::fields(v);
    v("reward", reward, "How rewards are learnt");
  }
  void validate(config::Problems& problems) const {
    AnyMethodConfig::validate(problems);
    validate_teaching(*this, "reward", "the command", reward.disable_dropout, problems);
  }
};

std::unique_ptr<TrainingCommand> make_reward(const RewardRunConfig& config, config::Places places) {
  return make_finetuning(config, std::move(places), teach_rewards(config.reward));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains reward models on pairs, by Bradley-Terry; rates texts.", "llmtk rlhf-reward");
  CommonOptions common;
  TrainingOptions training;
  std::function<int()> score;
  add_training_options(app, training);
  add_common_options(app, common, kExamples);
  app.require_subcommand(0, 1);
  app.fallthrough();
  add_score_command(app, common, score);
  return run_app(app, common, argc, argv, [&] {
    if (!score) return training_main<RewardRunConfig>(training, common, "llmtk rlhf-reward", make_reward);
    if (!training.path.empty())
      throw Error(Exit::usage, {.what = "score takes no config", .got = training.path, .hint = "leave it out"});
    return score();
  });
}
