// llmtk pretrain: config -> tokenizer -> data -> model -> run -> samples.

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>

#include "app.h"
#include "core/device.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "core/progress.h"
#include "core/runtime.h"
#include "data/pretraining.h"
#include "dist/parallel.h"
#include "generate/generate.h"
#include "io/model_folder.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "pretrain_config.h"
#include "text/tokenizer.h"
#include "train/causal_lm.h"
#include "train/run_log.h"
#include "train/trainer.h"

namespace fs = std::filesystem;
using namespace llmtk;
using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kExamples =
    "  llmtk pretrain configs/pretrain/quickstart.yaml\n"
    "  llmtk pretrain configs/pretrain/gpt2-124m.yaml trainer.max_steps=100 optimizer.learning_rate=3e-4\n"
    "  llmtk pretrain my.yaml --dry-run                            checks config, data, memory and disk\n"
    "  llmtk pretrain my.yaml trainer.resume_from_checkpoint=auto  goes on after a stop\n"
    "  llmtk pretrain --config-help                                every key, its default and what it does\n";

std::string checksum_of(const std::string& text) {
  Checksum checksum;
  checksum.update(std::as_bytes(std::span(text.data(), text.size())));
  return checksum.hex();
}

/// Everything that a run is made of, in the order in which it can be checked.
class Pretraining {
 public:
  explicit Pretraining(PretrainConfig config) : config_(std::move(config)) {}

  void prepare();
  /// What a run would do; memory and disk against what is there. Throws Error(file) when the disk is too small.
  Json plan() const;
  Json run();
  int exit_code() const { return exit_code_; }

 private:
  void open_tokenizer();
  void open_data();
  void resolve_model();
  Json resolved() const;
  void save_model(const fs::path& folder) const;
  std::string resolved_yaml() const;
  void write_samples(int64_t step, train::RunLog& log) const;

  PretrainConfig config_;
  c10::Device device_ = c10::kCPU;
  train::Start start_;
  std::string tokenizer_path_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  models::ResolvedModel model_config_;
  data::PretrainingData data_;
  std::shared_ptr<nn::CausalModel> model_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
  int exit_code_ = 0;
};

void Pretraining::prepare() {
  device_ = resolve_device(config_.trainer.device);
  start_ = train::find_start(config_.trainer);
  open_tokenizer();
  resolve_model();
  open_data();
}

void Pretraining::open_tokenizer() {
  tokenizer_path_ = config_.tokenizer.train ? data::learn_tokenizer(config_.data, *config_.tokenizer.train).string()
                                            : config_.tokenizer.name_or_path;
  if (tokenizer_path_.empty()) return;
  tokenizer_ = text::load_tokenizer(fs::exists(tokenizer_path_) ? fs::path(tokenizer_path_)
                                                                : io::find_model(tokenizer_path_));
}

void Pretraining::resolve_model() {
  model_config_ = models::resolve_model(config_.model);
  const int64_t in_tokenizer = tokenizer_ ? static_cast<int64_t>(tokenizer_->vocab_size()) : 0;
  if (tokenizer_) {
    const auto special = tokenizer_->special_tokens();
    models::adopt_vocabulary(model_config_, in_tokenizer, special.bos, special.eos, special.pad);
  }
  // On the meta device: checks every key, and allocates nothing.
  const auto shape = models::make(model_config_.config, model_config_.where, {at::kFloat, c10::kMeta});
  if (in_tokenizer > shape->vocab_size())
    throw Error(Exit::usage, {.what = "the tokenizer has more tokens than the model's vocab_size",
                              .where = model_config_.where,
                              .got = std::to_string(in_tokenizer),
                              .expected = "at most " + std::to_string(shape->vocab_size())});
  if (config_.data.max_length > shape->max_positions())
    throw Error(Exit::usage, {.what = "data.max_length is more than the model can see",
                              .got = std::to_string(config_.data.max_length),
                              .expected = "at most " + std::to_string(shape->max_positions())});
}

void Pretraining::open_data() {
  data_ = data::open_pretraining_data(
      config_.data, tokenizer_.get(), tokenizer_path_,
      {.batch_size = config_.trainer.per_device_train_batch_size,
       .eval_batch_size = config_.trainer.per_device_eval_batch_size,
       .epochs = config_.trainer.max_steps > 0 ? 0 : config_.trainer.num_train_epochs,
       .seed = static_cast<uint64_t>(config_.trainer.seed),
       .rank = parallel_->rank(),
       .world_size = parallel_->world_size(),
       .vocab_size = model_config_.config.value("vocab_size", int64_t{0})});
}

/// What checkpoints keep and a resumed run is compared with.
Json Pretraining::resolved() const {
  Json json = config::to_json(config_);
  json["model"] = {{"config", model_config_.config}};
  json["data"]["opened"] = data_.description;
  return json;
}

Json Pretraining::plan() const {
  const auto shape = models::make(model_config_.config, model_config_.where, {at::kFloat, c10::kMeta});
  const int64_t parameters = shape->num_parameters();
  const int64_t steps = train::total_steps(config_.trainer, config_.scheduler, *data_.train);
  const bool accumulates = config_.trainer.gradient_accumulation_steps > 1;
  const auto memory =
      train::memory_per_parameter(config_.optimizer, parse_dtype(config_.trainer.dtype), accumulates);
  const int64_t tokens_per_step = config_.trainer.per_device_train_batch_size * config_.data.max_length *
                                  config_.trainer.gradient_accumulation_steps * parallel_->world_size();
  const uint64_t checkpoint = static_cast<uint64_t>(parameters) *
                              static_cast<uint64_t>(memory.weights + memory.masters + memory.moments);
  const uint64_t free = free_disk_bytes(config_.trainer.output_dir);
  if (free < checkpoint)
    throw Error(Exit::file, {.what = "the disk has no room for a checkpoint",
                             .where = config_.trainer.output_dir,
                             .got = format_count(static_cast<double>(free)) + "B free",
                             .expected = format_count(static_cast<double>(checkpoint)) + "B"});
  Json plan = {{"model_type", model_config_.config.value("model_type", "")},
               {"parameters", parameters},
               {"device", device_.str()},
               {"dtype", config_.trainer.dtype},
               {"train_tokens", data_.train_tokens},
               {"validation_tokens", data_.validation_tokens},
               {"steps", steps},
               {"tokens_per_step", tokens_per_step},
               {"epochs", data_.train_tokens == 0 ? 0.0
                                                  : static_cast<double>(steps * tokens_per_step) /
                                                        static_cast<double>(data_.train_tokens)},
               {"bytes_of_weights_and_optimizer", parameters * memory.total()},
               {"bytes_of_a_checkpoint", checkpoint},
               {"output_dir", config_.trainer.output_dir}};
  if (start_.checkpoint) plan["resume_from"] = start_.checkpoint->path.string();
  return plan;
}

void Pretraining::save_model(const fs::path& folder) const {
  models::save(*model_, folder);
  if (tokenizer_) tokenizer_->save(folder);
}

/// config.resolved.yaml: every key, and as comments what else the run depends on.
std::string Pretraining::resolved_yaml() const {
  std::string text = "# llmtk " + version() + ", LibTorch " TORCH_VERSION ", " + device_.str() + ", " +
                     std::to_string(at::get_num_threads()) + " threads\n";
  for (const auto& source : data_.description.at("sources"))
    text += "# " + source.value("role", "") + ": " + source.value("path", "") + ", " +
            std::to_string(source.value("rows", uint64_t{0})) + " rows, checksum " + checksum_of(source.value("identity", "")) + "\n";
  return text + config::dump(config_);
}

void Pretraining::write_samples(int64_t step, train::RunLog& log) const {
  const auto settings = generation_config(config_.samples, static_cast<uint64_t>(config_.trainer.seed));
  const auto& prompts = config_.samples.prompts;
  const auto texts = generate::sample_texts(*model_, *tokenizer_, prompts, settings);
  for (size_t i = 0; i < texts.size(); ++i) log.sampled(step, prompts[i], texts[i]);
}

Json Pretraining::run() {
  const auto dtype = parse_dtype(config_.trainer.dtype);
  const auto seed = static_cast<uint64_t>(config_.trainer.seed);
  if (model_config_.weights)
    model_ = models::load(model_config_.weights->string(), {.dtype = at::kFloat, .device = device_});
  else
    model_ = models::create(model_config_.config, {at::kFloat, device_}, seed, model_config_.where);
  model_->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  parallel_->broadcast_parameters(model_->parameters());
  log::info(format_count(static_cast<double>(model_->num_parameters())) + " parameters, " +
            format_count(static_cast<double>(data_.train_tokens)) + " tokens to train on, on " + device_.str() + " in " +
            config_.trainer.dtype);

  train::RunLog log_of_run(config_.trainer.output_dir, fs::path(config_.trainer.output_dir).filename().string(),
                           resolved_yaml());
  train::Task task{
      .module = model_,
      .loss = [this](const data::Batch& batch, double scale) { return train::causal_lm_loss(*model_, batch, scale); },
      .train = data_.train.get(),
      .eval = data_.validation.get(),
      .parallel = parallel_.get(),
      .observer = &log_of_run,
      .save_model = [this](const fs::path& folder) { save_model(folder); },
      .load_weights =
          [this](const fs::path& folder) {
            models::load_weights(*model_, io::WeightFiles(folder), folder.string());
          },
      .run_config = resolved(),
      .flops_per_token = model_->training_flops_per_token(config_.data.max_length),
      .peak_flops = gemm_peak(dtype, device_)};
  if (!config_.samples.prompts.empty()) task.sample = [&](int64_t step) { write_samples(step, log_of_run); };
  train::Trainer trainer(config_.trainer, config_.optimizer, config_.scheduler, std::move(task));
  const train::RunResult result = trainer.run(start_);

  using End = train::RunResult::End;
  exit_code_ = static_cast<int>(result.end == End::interrupted ? Exit::stopped_saved : Exit::ok);
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  return {{"output_dir", config_.trainer.output_dir},
          {"end", result.end == End::finished         ? "finished"
                  : result.end == End::stopped_early ? "stopped_early"
                                                     : "interrupted"},
          {"step", result.step},
          {"tokens", result.tokens},
          {"target_tokens", result.target_tokens},
          {"seconds", result.seconds},
          {"loss", number(result.last_loss)},
          {"eval_loss", number(result.eval_loss)},
          {"best_eval_loss", number(result.best_eval_loss)},
          {"skipped_steps", result.nonfinite_steps},
          {"checkpoint", result.checkpoint}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trains a model from random weights, or goes on with one, on raw text or token shards.",
               "llmtk pretrain");
  CommonOptions common;
  std::string path;
  std::vector<std::string> overrides;
  bool dry_run = false, config_help = false, schema = false;
  app.add_option("config", path, "The YAML file");
  app.add_option("overrides", overrides, "section.key=value, over what the file says");
  app.add_flag("--dry-run", dry_run, "Check config, data, memory and disk, say what would happen, and stop");
  app.add_flag("--config-help", config_help, "Print every key of the config");
  app.add_flag("--config-schema", schema, "Print the config's JSON Schema, for editors");
  add_common_options(app, common, kExamples);
  return run_app(app, common, argc, argv, [&] {
    if (config_help || schema) {
      std::cout << (schema ? config::json_schema<PretrainConfig>("llmtk pretrain") : config::help<PretrainConfig>());
      return 0;
    }
    if (path.empty()) throw Error(Exit::usage, {.what = "which config?", .hint = "llmtk pretrain CONFIG.yaml"});
    auto config = config::load<PretrainConfig>(path, overrides);
    complete(config);
    setup_runtime(static_cast<int>(config.trainer.num_threads));
    Pretraining pretraining(std::move(config));
    pretraining.prepare();
    const Json answer = dry_run ? pretraining.plan() : pretraining.run();
    if (common.json || dry_run) std::cout << answer.dump(common.json ? -1 : 2) << "\n";
    return pretraining.exit_code();
  });
}
