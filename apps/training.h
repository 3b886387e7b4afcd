#pragma once
// What all commands that train share: their command line, what a run needs of the machine, and the run itself once
// model, data and loss are there.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app.h"
#include "config/config.h"
#include "core/runtime.h"
#include "dist/parallel.h"
#include "generate/config.h"
#include "nn/model.h"
#include "text/tokenizer.h"
#include "train/config.h"
#include "train/run_log.h"
#include "train/trainer.h"

namespace llmtk {

/// What the model writes while it learns.
struct SamplesConfig {
  std::vector<std::string> prompts;
  int64_t max_new_tokens = 100;
  bool do_sample = true;
  double temperature = 0.8;
  int64_t top_k = 50;
  double top_p = 1.0;

  template <class V>
  void fields(V& v) {
    v("prompts", prompts, "Texts to go on with, every trainer.sample_steps and at the end");
    v("max_new_tokens", max_new_tokens, "Tokens to write after each", config::at_least(1));
    v("do_sample", do_sample, "Draw each token; false: take the most probable one");
    v("temperature", temperature, "Below 1 more of the probable, above 1 more of the rest", config::above(0));
    v("top_k", top_k, "Draw among so many of the most probable tokens; 0: all", config::at_least(0));
    v("top_p", top_p, "Draw among the most probable tokens that have this probability together", config::above(0),
      config::at_most(1));
  }
  void validate(config::Problems& problems) const;
};

/// Rules between the sections of any training config.
void validate_training(const train::TrainerConfig& trainer, const SamplesConfig& samples, bool has_tokenizer,
                       bool evaluates, config::Problems& problems);

/// A command's work, in the order in which it can be checked.
class TrainingCommand {
 public:
  virtual ~TrainingCommand() = default;
  /// Checks all that can be checked before the machine works hard; opens the data.
  virtual void prepare() = 0;
  /// What a run would do. Throws what run() would throw of memory, disk and the checkpoint to go on from.
  virtual nlohmann::ordered_json plan() = 0;
  virtual nlohmann::ordered_json run() = 0;
  int exit_code() const { return exit_code_; }

 protected:
  int exit_code_ = 0;
};

struct TrainingOptions {
  std::string path;
  std::vector<std::string> overrides;
  bool dry_run = false, config_help = false, schema = false;
};
void add_training_options(CLI::App& app, TrainingOptions& options);

/// Prints a command's answer.
int run_training(TrainingCommand& command, const TrainingOptions& options, bool json);

/// The command line of a command with the config `Config`; make(config, places) gives its TrainingCommand.
template <class Config, class Make>
int training_main(const TrainingOptions& options, const CommonOptions& common, const std::string& name, Make&& make) {
  if (options.config_help || options.schema) {
    std::fputs((options.schema ? config::json_schema<Config>(name) : config::help<Config>()).c_str(), stdout);
    return 0;
  }
  if (options.path.empty()) throw Error(Exit::usage, {.what = "which config?", .hint = name + " CONFIG.yaml"});
  config::Places places;
  auto config = config::load<Config>(options.path, options.overrides, &places);
  complete(config);
  setup_runtime(static_cast<int>(config.trainer.num_threads));
  const std::unique_ptr<TrainingCommand> command = make(std::move(config), std::move(places));
  return run_training(*command, options, common.json);
}

/// main() of a command that trains, and does nothing else. make: as above.
template <class Config, class Make>
int training_program(int argc, char** argv, const std::string& name, const std::string& description,
                     const char* examples, Make&& make) {
  CLI::App app(description, name);
  CommonOptions common;
  TrainingOptions options;
  add_training_options(app, options);
  add_common_options(app, common, examples);
  return run_app(app, common, argc, argv, [&] { return training_main<Config>(options, common, name, make); });
}

/// What a run does with its machine, known before it begins.
struct RunShape {
  const train::TrainerConfig& trainer;
  const train::OptimizerConfig& optimizer;
  c10::Device device;
  int64_t steps;
  /// On the meta device: every size, no memory; what is frozen in the run is frozen here.
  const nn::Model& model;
  int64_t max_length;     ///< tokens of the longest row
  bool saves_all = true;  ///< checkpoints hold every parameter; false: those that are trained
  int matrix_bits = 0;    ///< of frozen matrices that are quantized; 0: none is
  int64_t others = 0;     ///< parameters of models beside it that stay as they are: a reference, rewards
  int64_t learners = 0;   ///< parameters of models beside it that are trained: values
};

/// What a run takes of the machine.
struct Needs {
  int64_t weight_bytes;      ///< of all parameters
  int64_t state_bytes;       ///< the same, and what training keeps of those that are trained
  int64_t activation_bytes;  ///< of one micro-batch until its backward, estimated
  int64_t checkpoint_bytes;
  uint64_t bytes_to_write;  ///< beyond what is there: the checkpoints that are kept, and the final model
};
Needs needs_of(const RunShape& run);
/// Against what the machine has now: throws Error(runtime) or Error(file); warns where it may be too little.
void check_needs(const RunShape& run, const Needs& needs);
/// What --dry-run prints, for the command to complete.
nlohmann::ordered_json describe(const RunShape& run, const Needs& needs);

/// A comment on what the run depends on besides its config (versions, data), for config.resolved.yaml.
std::string provenance(const nlohmann::ordered_json& data, c10::Device device);

generate::GenerationConfig generation_config(const SamplesConfig& samples, uint64_t seed);

/// The run itself. resolved_yaml: config.resolved.yaml. sample(step, log) may be empty. Returns the command's answer,
/// and in exit_code what the program ends with.
struct RunParts {
  const train::TrainerConfig& trainer;
  const train::OptimizerConfig& optimizer;
  const train::SchedulerConfig& scheduler;
  train::Task task;  ///< all but the observer and sample
  std::string resolved_yaml;
  std::function<void(int64_t step, train::RunLog& log)> sample;
};
nlohmann::ordered_json run_trainer(RunParts parts, const train::Start& start, int& exit_code);

}  // namespace llmtk
