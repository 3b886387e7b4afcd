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
#include "core/memory.h"
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
#include "train/losses.h"
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

/// What a run takes of the machine.
struct Needs {
  train::MemoryPerParameter per_parameter;
  int64_t steps, state_bytes, activation_bytes;
  uint64_t bytes_to_write;  ///< beyond what is there: the checkpoints that are kept, and the final model
};

/// Everything that a run is made of, in the order in which it can be checked.
class Pretraining {
 public:
  Pretraining(PretrainConfig config, config::Places places) : config_(std::move(config)), places_(std::move(places)) {}

  void prepare();
  /// What a run would do. Throws what run() would throw of memory, disk and the checkpoint to go on from.
  Json plan() const;
  Json run();
  int exit_code() const { return exit_code_; }

 private:
  void resolve_model();
  void open_tokenizer();
  void fit_vocabulary();
  void check_samples();
  void open_data();
  std::shared_ptr<const nn::CausalModel> shape_of(const io::Json& config) const;
  Json resolved() const;
  Needs needs() const;
  uint64_t bytes_to_write(int64_t steps, const train::MemoryPerParameter& memory) const;
  void check_memory(const Needs& needs) const;
  void check_disk(const Needs& needs) const;
  void save_model(const fs::path& folder) const;
  std::string resolved_yaml() const;
  void write_samples(int64_t step, train::RunLog& log) const;

  PretrainConfig config_;
  config::Places places_;
  c10::Device device_ = c10::kCPU;
  train::Start start_;
  std::string tokenizer_path_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  models::ResolvedModel model_config_;
  std::shared_ptr<const nn::CausalModel> shape_;  // the model on the meta device: every size, no memory
  generate::GenerationConfig samples_;
  data::PretrainingData data_;
  std::shared_ptr<nn::CausalModel> model_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
  int exit_code_ = 0;
};

/// What is quickly checked comes first: learning a tokenizer and tokenizing a corpus can take hours.
void Pretraining::prepare() {
  device_ = resolve_device(config_.trainer.device);
  resolve_model();
  start_ = train::find_start(config_.trainer);
  open_tokenizer();
  fit_vocabulary();
  check_samples();
  open_data();
}

void Pretraining::open_tokenizer() {
  tokenizer_path_ = config_.tokenizer.train ? data::learn_tokenizer(config_.data, *config_.tokenizer.train).string()
                                            : config_.tokenizer.name_or_path;
  if (tokenizer_path_.empty()) return;
  tokenizer_ = text::load_tokenizer(tokenizer_path_);
}

/// On the meta device: checks every key, and allocates nothing.
std::shared_ptr<const nn::CausalModel> Pretraining::shape_of(const io::Json& config) const {
  return models::make(config, model_config_.where, {at::kFloat, c10::kMeta, &model_config_.typed_keys});
}

void Pretraining::resolve_model() {
  model_config_ = models::resolve_model(config_.model, places_);
  std::error_code none;
  if (model_config_.weights && fs::equivalent(*model_config_.weights, config_.trainer.output_dir, none))
    throw Error(Exit::usage, {.what = "trainer.output_dir is the folder of the model to go on with",
                              .where = config_.trainer.output_dir,
                              .hint = "give the run another folder, or go on with the run in this one by "
                                      "trainer.resume_from_checkpoint=auto and its own config"});
  io::Json config = model_config_.config;
  if (!config.contains("vocab_size")) config["vocab_size"] = 1;  // the tokenizer will say
  shape_ = shape_of(config);
  if (config_.data.max_length > shape_->max_positions())
    throw Error(Exit::usage, {.what = "data.max_length is more than the model can see",
                              .where = places_.of("data.max_length"),
                              .got = std::to_string(config_.data.max_length),
                              .expected = "at most " + std::to_string(shape_->max_positions())});
}

void Pretraining::fit_vocabulary() {
  const int64_t in_tokenizer = tokenizer_ ? static_cast<int64_t>(tokenizer_->vocab_size()) : 0;
  if (tokenizer_) {
    const auto special = tokenizer_->special_tokens();
    models::adopt_vocabulary(model_config_, in_tokenizer, special.bos, special.eos, special.pad);
  }
  if (!model_config_.vocab_size_given) shape_ = shape_of(model_config_.config);
  if (in_tokenizer > shape_->vocab_size())
    throw Error(Exit::usage, {.what = "the tokenizer has more tokens than the model's vocab_size",
                              .where = places_.of("model.config.vocab_size"),
                              .got = std::to_string(in_tokenizer),
                              .expected = "at most " + std::to_string(shape_->vocab_size())});
}

void Pretraining::check_samples() {
  samples_ = generation_config(config_.samples, static_cast<uint64_t>(config_.trainer.seed));
  if (config_.samples.prompts.empty()) return;
  if (!tokenizer_)
    throw Error(Exit::usage, {.what = "samples.prompts need a tokenizer, and the model's folder has none",
                              .where = places_.of("samples.prompts"),
                              .hint = "set tokenizer.name_or_path"});
  std::vector<std::string> of_other_tasks;
  const auto special = generate::config_from_hf(model_config_.config, model_config_.where, of_other_tasks);
  samples_.bos_token_id = special.bos_token_id;
  samples_.eos_token_ids = special.eos_token_ids;
  generate::adopt_special_tokens(samples_, *tokenizer_);
  generate::check_prompts(*shape_, *tokenizer_, config_.samples.prompts, samples_);
}

void Pretraining::open_data() {
  data_ = data::open_pretraining_data(config_.data, tokenizer_.get(), tokenizer_path_,
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

/// Bytes that the activations of one micro-batch take until its backward: every matrix product keeps its input and
/// gives its output to the next. With gradient checkpointing only the inputs of the layers and one layer's own stay.
int64_t activation_bytes(const nn::CausalModel& shape, int64_t tokens, int64_t element_size, bool checkpointing) {
  int64_t elements = 0;
  for (const auto& parameter : shape.named_parameters())
    if (parameter.value().dim() == 2 && parameter.value().size(0) != shape.vocab_size())
      elements += parameter.value().size(0) + parameter.value().size(1);
  if (checkpointing) elements /= std::max<int64_t>(1, shape.num_layers() / 2);
  return elements * tokens * element_size;
}

uint64_t Pretraining::bytes_to_write(int64_t steps, const train::MemoryPerParameter& memory) const {
  const auto& trainer = config_.trainer;
  int64_t checkpoints = trainer.save_steps > 0 ? steps / trainer.save_steps + 1 : 1;
  // One more than the limit while the newest is written.
  if (trainer.save_total_limit > 0) checkpoints = std::min(checkpoints, trainer.save_total_limit + 1);
  const auto there = static_cast<int64_t>(train::list_checkpoints(trainer.output_dir).size());
  checkpoints = std::max<int64_t>(1, checkpoints - there);
  return static_cast<uint64_t>(shape_->num_parameters() * (checkpoints * memory.saved() + memory.weights));
}

Needs Pretraining::needs() const {
  const auto& trainer = config_.trainer;
  const auto memory = train::memory_per_parameter(config_.optimizer, parse_dtype(trainer.dtype),
                                                  trainer.gradient_accumulation_steps > 1);
  const int64_t steps = train::total_steps(trainer, config_.scheduler, *data_.train);
  return {.per_parameter = memory,
          .steps = steps,
          .state_bytes = shape_->num_parameters() * memory.total(),
          .activation_bytes = activation_bytes(*shape_, trainer.per_device_train_batch_size * config_.data.max_length,
                                               memory.weights, trainer.gradient_checkpointing),
          .bytes_to_write = bytes_to_write(steps, memory)};
}

/// Against what the machine has now. The weights and the optimizer's state are known to the byte; activations are an
/// estimate, so they only warn. What a GPU has is seen when the run begins.
void Pretraining::check_memory(const Needs& needs) const {
  const int64_t state = needs.state_bytes, activations = needs.activation_bytes;
  if (!device_.is_cpu()) return;
  const uint64_t available = available_memory_bytes();
  const auto bytes = [](auto count) { return format_count(static_cast<double>(count)) + "B"; };
  const std::string hint =
      "lower trainer.per_device_train_batch_size or data.max_length, turn "
      "trainer.gradient_checkpointing on, or take trainer.dtype bfloat16";
  if (static_cast<uint64_t>(state) > available)
    throw Error(Exit::runtime, {.what = "the weights and the optimizer's state do not fit into memory",
                                .got = bytes(available) + " available",
                                .expected = bytes(state),
                                .hint = "take a smaller model, or trainer.dtype bfloat16"});
  if (static_cast<uint64_t>(state + activations) > available)
    log::warn("memory may not be enough: " + bytes(state) + " of weights and optimizer and about " +
              bytes(activations) + " of activations, " + bytes(available) + " available; " + hint);
}

void Pretraining::check_disk(const Needs& needs) const {
  const uint64_t free = free_disk_bytes(config_.trainer.output_dir);
  if (free >= needs.bytes_to_write) return;
  throw Error(Exit::file, {.what = "the disk has no room for the run's checkpoints and its model",
                           .where = config_.trainer.output_dir,
                           .got = format_count(static_cast<double>(free)) + "B free",
                           .expected = format_count(static_cast<double>(needs.bytes_to_write)) + "B",
                           .hint = "set trainer.save_total_limit, or point trainer.output_dir to another disk"});
}

Json Pretraining::plan() const {
  if (start_.checkpoint)
    train::read_trainer_state(*start_.checkpoint, resolved(), config::add_defaults<PretrainConfig>);
  const Needs needs = this->needs();
  train::warn_of_length(config_.trainer, config_.scheduler, needs.steps);
  check_memory(needs);
  check_disk(needs);
  const int64_t parameters = shape_->num_parameters();
  const int64_t rows_per_step = config_.trainer.per_device_train_batch_size *
                                config_.trainer.gradient_accumulation_steps * parallel_->world_size();
  uint64_t rows = 0;
  for (const auto& source : data_.description.at("sources"))
    if (source.at("role") == "train") rows += source.at("rows").get<uint64_t>();
  Json plan = {{"model_type", model_config_.config.value("model_type", "")},
               {"parameters", parameters},
               {"device", device_.str()},
               {"dtype", config_.trainer.dtype},
               {"train_tokens", data_.train_tokens},
               {"validation_tokens", data_.validation_tokens},
               {"steps", needs.steps},
               {"tokens_per_step", rows_per_step * config_.data.max_length},
               {"epochs", static_cast<double>(needs.steps * rows_per_step) / static_cast<double>(rows)},
               {"bytes_of_weights_and_optimizer", needs.state_bytes},
               {"bytes_of_activations", needs.activation_bytes},
               {"bytes_of_a_checkpoint", parameters * needs.per_parameter.saved()},
               {"bytes_to_write", needs.bytes_to_write},
               {"output_dir", config_.trainer.output_dir}};
  if (start_.checkpoint) plan["resume_from"] = start_.checkpoint->path.string();
  return plan;
}

void Pretraining::save_model(const fs::path& folder) const {
  models::save(*model_, folder, {.companions = model_config_.weights});
  if (tokenizer_) tokenizer_->save(folder);
}

/// config.resolved.yaml: every key, and as comments what else the run depends on.
std::string Pretraining::resolved_yaml() const {
  std::string text = "# llmtk " + version() + ", LibTorch " TORCH_VERSION ", " + device_.str() + ", " +
                     std::to_string(at::get_num_threads()) + " threads\n";
  for (const auto& source : data_.description.at("sources"))
    text += "# " + source.value("role", "") + ": " + source.value("path", "") + ", " +
            std::to_string(source.value("rows", uint64_t{0})) + " rows, checksum " +
            checksum_of(source.value("identity", "")) + "\n";
  return text + config::dump(config_);
}

void Pretraining::write_samples(int64_t step, train::RunLog& log) const {
  const auto& prompts = config_.samples.prompts;
  const auto texts = generate::sample_texts(*model_, *tokenizer_, prompts, samples_);
  for (size_t i = 0; i < texts.size(); ++i) log.sampled(step, prompts[i], texts[i]);
}

Json Pretraining::run() {
  const Needs needs = this->needs();
  check_memory(needs);
  check_disk(needs);
  const auto dtype = parse_dtype(config_.trainer.dtype);
  const auto seed = static_cast<uint64_t>(config_.trainer.seed);
  const nn::Build build{at::kFloat, device_, &model_config_.typed_keys};
  if (model_config_.weights) {
    model_ = models::make(model_config_.config, model_config_.where, build);
    models::load_weights(*model_, io::WeightFiles(*model_config_.weights), model_config_.weights->string());
  } else {
    model_ = models::create(model_config_.config, build, seed, model_config_.where);
  }
  model_->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  parallel_->broadcast_parameters(model_->parameters());
  log::info(format_count(static_cast<double>(model_->num_parameters())) + " parameters, " +
            format_count(static_cast<double>(data_.train_tokens)) + " tokens to train on, on " + device_.str() +
            " in " + config_.trainer.dtype);

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
          [this](const fs::path& folder) { models::load_weights(*model_, io::WeightFiles(folder), folder.string()); },
      .run_config = resolved(),
      .add_defaults = config::add_defaults<PretrainConfig>,
      .flops_per_token = model_->training_flops_per_token(config_.data.max_length),
      .peak_flops = gemm_peak(dtype, device_)};
  if (!config_.samples.prompts.empty()) task.sample = [&](int64_t step) { write_samples(step, log_of_run); };
  train::Trainer trainer(config_.trainer, config_.optimizer, config_.scheduler, std::move(task));
  const train::RunResult result = trainer.run(start_);

  using End = train::RunResult::End;
  exit_code_ = static_cast<int>(result.end == End::interrupted ? Exit::stopped_saved : Exit::ok);
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  return {{"output_dir", config_.trainer.output_dir},
          {"end", result.end == End::finished        ? "finished"
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
    config::Places places;
    auto config = config::load<PretrainConfig>(path, overrides, &places);
    complete(config);
    setup_runtime(static_cast<int>(config.trainer.num_threads));
    Pretraining pretraining(std::move(config), std::move(places));
    pretraining.prepare();
    const Json answer = dry_run ? pretraining.plan() : pretraining.run();
    if (common.json || dry_run) std::cout << answer.dump(common.json ? -1 : 2) << "\n";
    return pretraining.exit_code();
  });
}
