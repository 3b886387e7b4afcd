// Where a run begins: what its folder holds, and how long it will be.

#include <algorithm>

#include "core/error.h"
#include "core/log.h"
#include "train/trainer.h"

namespace llmtk::train {
namespace {

[[noreturn]] void refuse(const fs::path& output) {
  throw Error(Exit::usage, {.what = "this folder holds a run already",
                            .where = output.string(),
                            .hint = "go on with trainer.resume_from_checkpoint=auto, begin anew with "
                                    "trainer.overwrite_output_dir=true (deletes that run), or give another "
                                    "trainer.output_dir"});
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
    // A run that was stopped before its first checkpoint begins anew; a model that stands there was finished.
    if (holds_model(output) && !config.overwrite_output_dir)
      throw Error(Exit::usage, {.what = "no checkpoint to go on from, but a finished model",
                                .where = output.string(),
                                .hint = "give another trainer.output_dir, or begin anew with "
                                        "trainer.overwrite_output_dir=true (deletes that model)"});
    log::info("no checkpoint in " + output.string() + " yet: beginning anew");
    return {.clear = holds_run(output)};
  }
  std::optional<CheckpointFolder> checkpoint;
  if (resume != "false") {
    if (const auto damage = checkpoint_damage(resume))
      throw Error(Exit::file, {.what = "cannot go on from this checkpoint: " + *damage,
                               .where = resume,
                               .hint = "trainer.resume_from_checkpoint=auto takes the newest whole one"});
    checkpoint = CheckpointFolder{.step = 0, .path = fs::canonical(resume)};
    if (fs::exists(output) && checkpoint->path.parent_path() == fs::canonical(output)) return {.checkpoint = checkpoint};
  }
  if (holds_run(output) && !config.overwrite_output_dir) refuse(output);
  return {.checkpoint = std::move(checkpoint), .clear = holds_run(output)};
}

int64_t total_steps(const TrainerConfig& config, const SchedulerConfig& scheduler, const data::BatchSource& source) {
  const int64_t accumulation = config.gradient_accumulation_steps, batches = source.total_batches();
  const int64_t in_data = batches < 0 ? -1 : (batches + accumulation - 1) / accumulation;
  if (config.max_steps > 0) return in_data < 0 ? config.max_steps : std::min(config.max_steps, in_data);
  if (in_data > 0) return in_data;
  if (parse_schedule(scheduler.lr_scheduler_type) == ScheduleType::constant && scheduler.warmup_ratio == 0) return 0;
  throw Error(Exit::usage, {.what = "the length of the run is not known, and its schedule needs it",
                            .got = "lr_scheduler_type " + scheduler.lr_scheduler_type,
                            .hint = "set trainer.max_steps"});
}

BestMetric best_metric(const TrainerConfig& config, Evaluator* evaluator) {
  const std::string& given = config.metric_for_best_model;
  const std::string name = given.starts_with("eval_") ? given.substr(5) : given;
  std::vector<std::string> known = {"loss"};
  if (!evaluator || evaluator->has_perplexity()) known.emplace_back("perplexity");
  if (evaluator) {
    evaluator->begin();
    const nlohmann::ordered_json metrics = evaluator->metrics();  // of nothing yet
    for (const auto& [metric, value] : metrics.items())
      if (!value.is_number_integer() && !value.is_structured()) known.push_back(metric);
  }
  if (std::ranges::find(known, name) == known.end()) {
    std::string expected;
    for (const std::string& one : known) expected += (expected.empty() ? "" : ", ") + one;
    throw Error(Exit::usage, {.what = "no evaluation of this run gives this metric",
                              .where = "trainer.metric_for_best_model",
                              .got = "'" + given + "'",
                              .expected = expected});
  }
  const bool error = name.ends_with("loss") || name == "perplexity" || name == "mse" || name == "mae";
  return {name, config.greater_is_better.value_or(!error)};
}

void warn_of_length(const TrainerConfig& config, const SchedulerConfig& scheduler, int64_t steps) {
  if (steps <= 0) return;
  if (config.max_steps > steps)
    log::warn(detail::concat("the data ends after ", steps, " steps, before trainer.max_steps ", config.max_steps,
                             ": the learning rate follows the shorter run"));
  const Schedule schedule = scheduler.make(steps);
  const int64_t decay = schedule.type == ScheduleType::wsd ? schedule.decay_steps : 0;
  if (schedule.warmup_steps >= steps)
    log::warn(detail::concat("the learning rate never reaches its peak: the warm-up takes ", schedule.warmup_steps,
                             " steps, the run ", steps));
  else if (schedule.warmup_steps + decay > steps)
    log::warn(detail::concat("the learning rate does not come down to its end: the warm-up takes ",
                             schedule.warmup_steps, " steps and the decay ", decay, ", the run ", steps));
}

}  // namespace llmtk::train
