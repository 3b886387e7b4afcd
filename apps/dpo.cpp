// llmtk dpo: a model learns from preferences, by DPO and its kin, ORPO or KTO.

#include "any_method.h"
#include "dpo_teaching.h"
#include "finetuning.h"

using namespace llmtk;

namespace {

constexpr const char* kExamples =
    "  llmtk dpo configs/dpo/gsm8k-smollm2.yaml\n"
    "  llmtk dpo my.yaml dpo.loss_type=ipo dpo.beta=0.3\n"
    "  llmtk dpo my.yaml --dry-run                            checks config, data, memory and disk\n"
    "  llmtk dpo my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk data my.yaml                                     shows the pairs as the model sees them\n"
    "  llmtk dpo --config-help                                every key, its default and what it does\n";

struct DpoRunConfig : AnyMethodConfig {
  rl::DpoConfig dpo;

  DpoRunConfig() { optimizer.learning_rate = 1e-6; }  // DPOConfig's

  template <class V>
  void fields(V& v) {
    AnyMethodConfig::fields(v);
    v("dpo", dpo, "What the preferences teach");
  }
  void validate(config::Problems& problems) const {
    AnyMethodConfig::validate(problems);
    validate_teaching(*this, "dpo", "dpo.loss_type", dpo.disable_dropout, problems);
    if (dpo.is_kto() && trainer.per_device_train_batch_size < 2)
      problems.add("trainer.per_device_train_batch_size",
                   {.what = "kto estimates its KL on the other rows of a batch", .got = "1", .expected = "2 or more"});
  }
};

}  // namespace

int main(int argc, char** argv) {
  return llmtk::training_program<DpoRunConfig>(
      argc, argv, "llmtk dpo",
      "Trains on preferences: DPO, IPO, hinge, robust DPO, ORPO, KTO; by any method of fine-tuning.", kExamples,
      [](const DpoRunConfig& config, auto places) {
        return make_finetuning(config, std::move(places),
                               teach_preferences(config.dpo, config.trainer.per_device_eval_batch_size));
      });
}
