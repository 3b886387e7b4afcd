// Where a run begins: what its folder holds, and how long it will be.

#include <array>

#include "core/error.h"
#include "core/log.h"
#include "train/trainer.h"

namespace llmtk::train {
namespace {

bool holds_run(const fs::path& output) {
  for (const char* name :
       {"metrics.jsonl", "config.resolved.yaml", "model.safetensors", "model.safetensors.index.json"})
    if (fs::exists(output / name)) return true;
  return !list_checkpoints(output).empty();
}

}  // namespace

Start find_start(const TrainerConfig& config) {
  const fs::path output = config.output_dir;
  const std::string& resume = config.resume_from_checkpoint;
  if (resume == "auto" || resume == "true") {
    if (auto newest = newest_whole_checkpoint(output)) return {.checkpoint = std::move(newest)};
    if (!list_checkpoints(output).empty())
      throw Error(Exit::file, {.what = "none of the checkpoints here is whole",
                               .where = output.string(),
                               .hint = "begin anew with trainer.resume_from_checkpoint=false "
                                       "trainer.overwrite_output_dir=true"});
    if (resume == "true")
      throw Error(Exit::usage, {.what = "no checkpoint to go on from",
                                .where = output.string(),
                                .hint = "trainer.resume_from_checkpoint=auto begins anew where there is none"});
    log::info("no checkpoint in " + output.string() + " yet: beginning anew");
    return {.clear = true};
  }
  if (resume != "false") {
    if (const auto damage = checkpoint_damage(resume))
      throw Error(Exit::file, {.what = "cannot go on from this checkpoint: " + *damage,
                               .where = resume,
                               .hint = "trainer.resume_from_checkpoint=auto takes the newest whole one"});
    const fs::path path = fs::canonical(resume);
    Start start{.checkpoint = CheckpointFolder{.step = 0, .path = path}};
    if (fs::exists(output) && path.parent_path() == fs::canonical(output)) return start;
    if (!holds_run(output) || config.overwrite_output_dir) {
      start.clear = true;
      return start;
    }
  } else if (!holds_run(output) || config.overwrite_output_dir) {
    return {.clear = true};
  }
  throw Error(Exit::usage, {.what = "this folder holds a run already",
                            .where = output.string(),
                            .hint = "go on with trainer.resume_from_checkpoint=auto, begin anew with "
                                    "trainer.overwrite_output_dir=true (deletes that run), or give another "
                                    "trainer.output_dir"});
}

int64_t total_steps(const TrainerConfig& config, const SchedulerConfig& scheduler, const data::BatchSource& source) {
  if (config.max_steps > 0) return config.max_steps;
  const int64_t batches = source.batches_per_epoch();
  if (batches > 0) {
    const int64_t accumulation = config.gradient_accumulation_steps;
    return (batches * config.num_train_epochs + accumulation - 1) / accumulation;
  }
  if (parse_schedule(scheduler.lr_scheduler_type) == ScheduleType::constant && scheduler.warmup_ratio == 0) return 0;
  throw Error(Exit::usage, {.what = "the length of the run is not known, and its schedule needs it",
                            .got = "lr_scheduler_type " + scheduler.lr_scheduler_type,
                            .hint = "set trainer.max_steps"});
}

}  // namespace llmtk::train
