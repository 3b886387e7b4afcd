#include "training.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <algorithm>
#include <iostream>
#include <span>

#include "core/device.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/memory.h"
#include "core/progress.h"
#include "train/parameters.h"

namespace llmtk {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

void SamplesConfig::validate(config::Problems& problems) const {
  const SamplesConfig defaults;
  const auto idle = [&](const char* key, bool set) {
    if (set && !do_sample)
      problems.add(key, {.what = "has no effect with samples.do_sample false", .hint = "leave it out"});
  };
  idle("temperature", temperature != defaults.temperature);
  idle("top_k", top_k != defaults.top_k);
  idle("top_p", top_p != defaults.top_p);
}

void validate_training(const train::TrainerConfig& trainer, const SamplesConfig& samples, bool has_tokenizer,
                       bool evaluates, config::Problems& problems) {
  try {
    resolve_device(trainer.device);
  } catch (const Error& error) {
    problems.add("trainer.device", error.parts());
  }
  if (!samples.prompts.empty() && !has_tokenizer)
    problems.add("samples.prompts",
                 {.what = "prompts need a tokenizer", .hint = "set tokenizer.name_or_path or tokenizer.train"});
  if (trainer.sample_steps > 0 && samples.prompts.empty())
    problems.add("trainer.sample_steps",
                 {.what = "samples are asked for, but there is no prompt", .hint = "set samples.prompts"});
  if (evaluates) return;
  const std::string hint = "set data.validation_fraction or data.validation";
  if (trainer.eval_steps > 0)
    problems.add("trainer.eval_steps",
                 {.what = "evaluations are asked for, but there is no data for them", .hint = hint});
  if (trainer.eval_on_start)
    problems.add("trainer.eval_on_start", {.what = "there is no data to evaluate on", .hint = hint});
  if (trainer.metric_for_best_model != "loss")
    problems.add("trainer.metric_for_best_model", {.what = "there is no data to evaluate on", .hint = hint});
  if (trainer.early_stopping_patience > 0)
    problems.add("trainer.early_stopping_patience", {.what = "early stopping needs evaluations", .hint = hint});
}

void add_training_options(CLI::App& app, TrainingOptions& options) {
  app.add_option("config", options.path, "The YAML file");
  app.add_option("overrides", options.overrides, "section.key=value, over what the file says");
  app.add_flag("--dry-run", options.dry_run, "Check config, data, memory and disk, say what would happen, and stop");
  app.add_flag("--config-help", options.config_help, "Print every key of the config");
  app.add_flag("--config-schema", options.schema, "Print the config's JSON Schema, for editors");
}

int run_training(TrainingCommand& command, const TrainingOptions& options, bool json) {
  command.prepare();
  const Json answer = options.dry_run ? command.plan() : command.run();
  if (json || options.dry_run) std::cout << answer.dump(json ? -1 : 2) << "\n";
  return command.exit_code();
}

namespace {

/// Every matrix product keeps its input and gives its output to the next. With gradient checkpointing only the inputs
/// of the layers and one layer's own stay.
int64_t activation_bytes(const nn::Model& model, int64_t tokens, int64_t element_size, bool checkpointing) {
  int64_t elements = 0;
  for (const auto& parameter : model.named_parameters())
    if (parameter.value().dim() == 2 && parameter.value().size(0) != model.vocab_size())
      elements += parameter.value().size(0) + parameter.value().size(1);
  if (checkpointing) elements /= std::max<int64_t>(1, model.num_layers() / 2);
  return elements * tokens * element_size;
}

/// What the frozen matrices of layers need less when they are quantized.
int64_t bytes_saved_by_quantizing(const RunShape& run, int64_t weight_bytes) {
  if (run.matrix_bits == 0) return 0;
  int64_t elements = 0;
  for (const auto& parameter : run.model.named_parameters())
    if (parameter.value().dim() == 2 && !parameter.value().requires_grad() &&
        parameter.value().size(0) != run.model.vocab_size())
      elements += parameter.value().numel();
  return elements * (8 * weight_bytes - run.matrix_bits) / 8;
}

/// All but the newest are written in a run's course.
int64_t checkpoints_to_write(const train::TrainerConfig& trainer, int64_t steps) {
  int64_t checkpoints = trainer.save_steps > 0 ? steps / trainer.save_steps + 1 : 1;
  // One more than the limit while the newest is written.
  if (trainer.save_total_limit > 0) checkpoints = std::min(checkpoints, trainer.save_total_limit + 1);
  const auto there = static_cast<int64_t>(train::list_checkpoints(trainer.output_dir).size());
  return std::max<int64_t>(1, checkpoints - there);
}

std::string bytes(auto count) { return format_count(static_cast<double>(count)) + "B"; }

}  // namespace

Needs needs_of(const RunShape& run) {
  const auto& trainer = run.trainer;
  const auto memory = train::memory_per_parameter(run.optimizer, parse_dtype(trainer.dtype),
                                                  trainer.gradient_accumulation_steps > 1);
  const int64_t all = run.model.num_parameters() + run.learners;
  const int64_t trained = train::count_parameters(run.model, true) + run.learners;
  const int64_t saved = run.saves_all ? all : trained;  // parameters in the model's files
  const int64_t checkpoint = saved * memory.weights + trained * (memory.saved() - memory.weights);
  const int64_t weights = (all + run.others) * memory.weights - bytes_saved_by_quantizing(run, memory.weights);
  return {.weight_bytes = weights,
          .state_bytes = weights + trained * (memory.total() - memory.weights),
          .activation_bytes = activation_bytes(run.model, trainer.per_device_train_batch_size * run.max_length,
                                               memory.weights, trainer.gradient_checkpointing),
          .checkpoint_bytes = checkpoint,
          .bytes_to_write =
              static_cast<uint64_t>(checkpoints_to_write(trainer, run.steps) * checkpoint + saved * memory.weights)};
}

namespace {

/// The weights and the optimizer's state are known to the byte; activations are an estimate, so they only warn. What a
/// GPU has is seen when the run begins.
void check_memory(const RunShape& run, const Needs& needs) {
  const int64_t state = needs.state_bytes, activations = needs.activation_bytes;
  if (!run.device.is_cpu()) return;
  const uint64_t available = available_memory_bytes();
  if (static_cast<uint64_t>(state) > available)
    throw Error(Exit::runtime, {.what = "the weights and the optimizer's state do not fit into memory",
                                .got = bytes(available) + " available",
                                .expected = bytes(state),
                                .hint = "take a smaller model, or trainer.dtype bfloat16"});
  if (static_cast<uint64_t>(state + activations) > available)
    log::warn("memory may not be enough: " + bytes(state) + " of weights and optimizer and about " +
              bytes(activations) + " of activations, " + bytes(available) +
              " available; lower trainer.per_device_train_batch_size or data.max_length, turn "
              "trainer.gradient_checkpointing on, or take trainer.dtype bfloat16");
}

void check_disk(const RunShape& run, const Needs& needs) {
  const uint64_t free = free_disk_bytes(run.trainer.output_dir);
  if (free >= needs.bytes_to_write) return;
  throw Error(Exit::file, {.what = "the disk has no room for the run's checkpoints and its model",
                           .where = run.trainer.output_dir,
                           .got = bytes(free) + " free",
                           .expected = bytes(needs.bytes_to_write),
                           .hint = "set trainer.save_total_limit, or point trainer.output_dir to another disk"});
}

}  // namespace

void check_needs(const RunShape& run, const Needs& needs) {
  check_memory(run, needs);
  check_disk(run, needs);
}

Json describe(const RunShape& run, const Needs& needs) {
  return {{"model_type", run.model.config().value("model_type", "")},
          {"parameters", run.model.num_parameters()},
          {"trained_parameters", train::count_parameters(run.model, true) + run.learners},
          {"device", run.device.str()},
          {"dtype", run.trainer.dtype},
          {"steps", run.steps},
          {"bytes_of_weights_and_optimizer", needs.state_bytes},
          {"bytes_of_activations", needs.activation_bytes},
          {"bytes_of_a_checkpoint", needs.checkpoint_bytes},
          {"bytes_to_write", needs.bytes_to_write},
          {"output_dir", run.trainer.output_dir}};
}

std::string provenance(const Json& data, c10::Device device) {
  std::string text = "# llmtk " + version() + ", LibTorch " TORCH_VERSION ", " + device.str() + ", " +
                     std::to_string(at::get_num_threads()) + " threads\n";
  for (const auto& source : data.at("sources")) {
    const std::string identity = source.value("identity", "");
    Checksum checksum;
    checksum.update(std::as_bytes(std::span(identity.data(), identity.size())));
    text += "# " + source.value("role", "") + ": " + source.value("path", "") + ", " +
            std::to_string(source.value("rows", uint64_t{0})) + " rows, checksum " + checksum.hex() + "\n";
  }
  return text;
}

generate::GenerationConfig generation_config(const SamplesConfig& samples, uint64_t seed) {
  generate::GenerationConfig config;
  config.max_new_tokens = samples.max_new_tokens;
  config.do_sample = samples.do_sample;
  config.temperature = samples.temperature;
  config.top_k = samples.top_k;
  config.top_p = samples.top_p;
  config.seed = seed;
  return config;
}

Json run_trainer(RunParts parts, const train::Start& start, int& exit_code) {
  const std::string& output_dir = parts.trainer.output_dir;
  train::RunLog log_of_run(output_dir, fs::path(output_dir).filename().string(), parts.resolved_yaml);
  parts.task.observer = &log_of_run;
  if (parts.sample) parts.task.sample = [&](int64_t step) { parts.sample(step, log_of_run); };
  train::Trainer trainer(parts.trainer, parts.optimizer, parts.scheduler, std::move(parts.task));
  const train::RunResult result = trainer.run(start);

  using End = train::RunResult::End;
  exit_code = static_cast<int>(result.end == End::interrupted ? Exit::stopped_saved : Exit::ok);
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  return {{"output_dir", output_dir},
          {"end", result.end == End::finished        ? "finished"
                  : result.end == End::stopped_early ? "stopped_early"
                                                     : "interrupted"},
          {"step", result.step},
          {"tokens", result.tokens},
          {"target_tokens", result.target_tokens},
          {"seconds", result.seconds},
          {"loss", number(result.last_loss)},
          {"eval_loss", number(result.eval_loss)},
          {"eval_metrics", result.eval_metrics},
          {"best_eval_loss", number(result.best_eval_loss)},
          {"best_metric", number(result.best_metric)},
          {"best_step", result.best_step < 0 ? Json() : Json(result.best_step)},
          {"skipped_steps", result.nonfinite_steps},
          {"checkpoint", result.checkpoint}};
}

}  // namespace llmtk
