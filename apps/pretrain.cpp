// llmtk pretrain: config -> tokenizer -> data -> model -> run -> samples.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "app.h"
#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "data/pretraining.h"
#include "dist/parallel.h"
#include "generate/generate.h"
#include "io/model_folder.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "pretrain_config.h"
#include "text/tokenizer.h"
#include "train/losses.h"
#include "training.h"

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

using Objective = data::PretrainingObjective;

/// What a model of this kind learns from text alone.
Objective objective_of(const nn::Model& model) {
  if (dynamic_cast<const nn::EncoderModel*>(&model)) return Objective::masked_lm;
  if (dynamic_cast<const nn::Seq2SeqModel*>(&model)) return Objective::span_corruption;
  if (!dynamic_cast<const nn::CausalModel*>(&model))
    models::refuse_kind(model, "a decoder, an encoder or an encoder-decoder", "model");
  return Objective::causal_lm;
}

train::LossFunction loss_of(const std::shared_ptr<nn::Model>& model) {
  using data::Batch;
  if (const auto encoder = std::dynamic_pointer_cast<nn::EncoderModel>(model))
    return [encoder](const Batch& batch, double scale) { return train::masked_lm_loss(*encoder, batch, scale); };
  if (const auto both = std::dynamic_pointer_cast<nn::Seq2SeqModel>(model))
    return [both](const Batch& batch, double scale) { return train::seq2seq_loss(*both, batch, scale); };
  const auto decoder = models::as<nn::CausalModel>(model, "model");
  return [decoder](const Batch& batch, double scale) { return train::causal_lm_loss(*decoder, batch, scale); };
}

class Pretraining final : public TrainingCommand {
 public:
  Pretraining(PretrainConfig config, config::Places places) : config_(std::move(config)), places_(std::move(places)) {}

  void prepare() override;
  Json plan() override;
  Json run() override;

 private:
  void resolve_model();
  void open_tokenizer();
  void fit_vocabulary();
  void check_samples();
  void open_data();
  std::shared_ptr<const nn::Model> shape_of(const io::Json& config) const;
  Json resolved() const;
  RunShape shape() const;
  void make_model();
  void save_model(const fs::path& folder) const;
  void write_samples(int64_t step, train::RunLog& log) const;

  PretrainConfig config_;
  config::Places places_;
  c10::Device device_ = c10::kCPU;
  train::Start start_;
  std::string tokenizer_path_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  models::ResolvedModel model_config_;
  bool another_head_ = false;                // than the weights are of
  std::shared_ptr<const nn::Model> shape_;  // the model on the meta device: every size, no memory
  generate::GenerationConfig samples_;
  data::PretrainingData data_;
  std::shared_ptr<nn::Model> model_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
};

/// What is quickly checked comes first: learning a tokenizer and tokenizing a corpus can take hours.
void Pretraining::prepare() {
  device_ = resolve_device(config_.trainer.device);
  resolve_model();
  start_ = train::find_start(config_.trainer);
  open_tokenizer();
  fit_vocabulary();
  check_samples();
  train::best_metric(config_.trainer, /*evaluator=*/nullptr);
  open_data();
}

void Pretraining::open_tokenizer() {
  tokenizer_path_ = config_.tokenizer.train ? data::learn_tokenizer(config_.data, *config_.tokenizer.train).string()
                                            : config_.tokenizer.name_or_path;
  if (tokenizer_path_.empty()) return;
  tokenizer_ = text::load_tokenizer(tokenizer_path_);
}

/// On the meta device: checks every key, and allocates nothing.
std::shared_ptr<const nn::Model> Pretraining::shape_of(const io::Json& config) const {
  return models::make_model(config, model_config_.where, {at::kFloat, c10::kMeta, &model_config_.typed_keys});
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
  if (objective_of(*shape_) == Objective::masked_lm) {
    another_head_ = models::choose_head(model_config_.config, nn::Head::masked_lm, model_config_.where);
    models::choose_head(config, nn::Head::masked_lm, model_config_.where);
    shape_ = shape_of(config);
  }
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
  if (objective_of(*shape_) == Objective::masked_lm)
    throw Error(Exit::usage, {.what = "an encoder goes on with no text",
                              .where = places_.of("samples.prompts"),
                              .hint = "leave samples out; llmtk generate --fill-mask shows what it has learnt"});
  std::vector<std::string> of_other_tasks;
  const auto special = generate::config_from_hf(model_config_.config, model_config_.where, of_other_tasks);
  samples_.bos_token_id = special.bos_token_id;
  samples_.eos_token_ids = special.eos_token_ids;
  generate::adopt_special_tokens(samples_, *tokenizer_);
  generate::check_prompts(*shape_, *tokenizer_, config_.samples.prompts, samples_);
}

void Pretraining::open_data() {
  data_ = data::open_pretraining_data(config_.data, tokenizer_.get(), tokenizer_path_,
                                      {.objective = objective_of(*shape_),
                                       .batch_size = config_.trainer.per_device_train_batch_size,
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

RunShape Pretraining::shape() const {
  return {.trainer = config_.trainer,
          .optimizer = config_.optimizer,
          .device = device_,
          .steps = train::total_steps(config_.trainer, config_.scheduler, *data_.train),
          .model = *shape_,
          .max_length = config_.data.max_length};
}

Json Pretraining::plan() {
  if (start_.checkpoint)
    train::read_trainer_state(*start_.checkpoint, resolved(), config::add_defaults<PretrainConfig>);
  const RunShape shape = this->shape();
  const Needs needs = needs_of(shape);
  train::warn_of_length(config_.trainer, config_.scheduler, shape.steps);
  check_needs(shape, needs);
  const int64_t rows_per_step = config_.trainer.per_device_train_batch_size *
                                config_.trainer.gradient_accumulation_steps * parallel_->world_size();
  uint64_t rows = 0;
  for (const auto& source : data_.description.at("sources"))
    if (source.at("role") == "train") rows += source.at("rows").get<uint64_t>();
  Json plan = describe(shape, needs);
  plan["train_tokens"] = data_.train_tokens;
  plan["validation_tokens"] = data_.validation_tokens;
  plan["tokens_per_step"] = rows_per_step * config_.data.max_length;
  plan["epochs"] = static_cast<double>(shape.steps * rows_per_step) / static_cast<double>(rows);
  if (start_.checkpoint) plan["resume_from"] = start_.checkpoint->path.string();
  return plan;
}

void Pretraining::save_model(const fs::path& folder) const {
  models::save(*model_, folder, {.companions = model_config_.weights});
  if (tokenizer_) tokenizer_->save(folder);
}

void Pretraining::write_samples(int64_t step, train::RunLog& log) const {
  const auto& prompts = config_.samples.prompts;
  const auto texts = generate::sample_texts(*model_, *tokenizer_, prompts, samples_);
  for (size_t i = 0; i < texts.size(); ++i) log.sampled(step, prompts[i], texts[i]);
}

void Pretraining::make_model() {
  const auto seed = static_cast<uint64_t>(config_.trainer.seed);
  const nn::Build build{at::kFloat, device_, &model_config_.typed_keys};
  model_ = models::make_model(model_config_.config, model_config_.where, build);
  if (model_config_.weights)
    models::load_weights(*model_, io::WeightFiles(*model_config_.weights), model_config_.weights->string(),
                         /*map=*/false, another_head_ ? std::optional(seed) : std::nullopt);
  else
    model_->initialize(seed);
  model_->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  parallel_->broadcast_parameters(model_->parameters());
}

Json Pretraining::run() {
  const RunShape shape = this->shape();
  check_needs(shape, needs_of(shape));
  make_model();
  log::info(format_count(static_cast<double>(model_->num_parameters())) + " parameters, " +
            format_count(static_cast<double>(data_.train_tokens)) + " tokens to train on, on " + device_.str() +
            " in " + config_.trainer.dtype);
  RunParts parts{
      .trainer = config_.trainer,
      .optimizer = config_.optimizer,
      .scheduler = config_.scheduler,
      .task = {.module = model_,
               .loss = loss_of(model_),
               .train = data_.train.get(),
               .eval = data_.validation.get(),
               .parallel = parallel_.get(),
               .save_model = [this](const fs::path& folder) { save_model(folder); },
               .load_weights =
                   [this](const fs::path& folder) {
                     models::load_weights(*model_, io::WeightFiles(folder), folder.string());
                   },
               .run_config = resolved(),
               .add_defaults = config::add_defaults<PretrainConfig>,
               .flops_per_token = model_->training_flops_per_token(config_.data.max_length),
               .peak_flops = gemm_peak(parse_dtype(config_.trainer.dtype), device_)},
      .resolved_yaml = provenance(data_.description, device_) + config::dump(config_)};
  if (!config_.samples.prompts.empty())
    parts.sample = [this](int64_t step, train::RunLog& log) { write_samples(step, log); };
  return run_trainer(std::move(parts), start_, exit_code_);
}

}  // namespace

int main(int argc, char** argv) {
  return training_program<PretrainConfig>(
      argc, argv, "llmtk pretrain",
      "Trains a model from random weights, or goes on with one, on raw text or token shards.", kExamples,
      [](auto config, auto places) { return std::make_unique<Pretraining>(std::move(config), std::move(places)); });
}
