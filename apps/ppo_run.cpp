#include "ppo_run.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <map>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "io/tensors.h"
#include "models/registry.h"
#include "peft/adapter.h"
#include "ppo_rewards.h"
#include "rl/ppo_trainer.h"
#include "train/parameters.h"
#include "train/run_log.h"

namespace llmtk {

void PpoRunConfig::validate(config::Problems& problems) const {
  const train::TrainerConfig plain;
  const auto idle = [&](const char* key, bool given, const char* hint) {
    if (given) problems.add(std::string("trainer.") + key, {.what = "has no effect with PPO", .hint = hint});
  };
  const char* leave = "leave it out";
  idle("max_steps", trainer.max_steps != plain.max_steps, "set ppo.total_episodes");
  idle("num_train_epochs", trainer.num_train_epochs != plain.num_train_epochs && ppo.total_episodes > 0,
       "ppo.total_episodes says how long the run is");
  idle("logging_steps", trainer.logging_steps != plain.logging_steps, "metrics are written for each batch of responses");
  idle("eval_steps", trainer.eval_steps != plain.eval_steps, leave);
  idle("sample_steps", trainer.sample_steps != plain.sample_steps, "set ppo.num_samples");
  idle("eval_on_start", trainer.eval_on_start, leave);
  idle("load_best_model_at_end", trainer.load_best_model_at_end, leave);
  idle("metric_for_best_model", trainer.metric_for_best_model != plain.metric_for_best_model, leave);
  idle("greater_is_better", trainer.greater_is_better.has_value(), leave);
  idle("early_stopping_patience", trainer.early_stopping_patience != plain.early_stopping_patience, "set ppo.target_kl");
  idle("per_device_eval_batch_size", trainer.per_device_eval_batch_size != plain.per_device_eval_batch_size, leave);
  if (const int64_t batch = rl::ppo_batch_size(trainer); batch % ppo.num_mini_batches != 0)
    problems.add("ppo.num_mini_batches", {.what = "does not divide the responses of a batch",
                                          .got = std::to_string(ppo.num_mini_batches),
                                          .expected = "a divisor of per_device_train_batch_size * "
                                                      "gradient_accumulation_steps = " + std::to_string(batch)});
  if (model.name_or_path.empty())
    problems.add("model.name_or_path", {.what = "a policy begins as a trained model", .expected = "its folder or name"});
  try {
    resolve_device(trainer.device);
  } catch (const Error& error) {
    problems.add("trainer.device", error.parts());
  }
  if (!lora) return;
  const std::string base = "the reference is the base under a disabled adapter";
  if (lora->lora_dropout > 0)
    problems.add("lora.lora_dropout", {.what = "has no effect: PPO trains without dropout", .hint = leave});
  if (lora->bias != "none") problems.add("lora.bias", {.what = base + ": it cannot train the base's biases", .expected = "none"});
  if (!lora->modules_to_save.empty())
    problems.add("lora.modules_to_save", {.what = base + ": it cannot train modules of the base", .hint = leave});
  if (lora->is_pissa())
    problems.add("lora.init_lora_weights", {.what = base + ", which PiSSA takes apart", .expected = "true or gaussian"});
}

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kValueFile = "value.safetensors";

class PpoRun final : public TrainingCommand {
 public:
  PpoRun(PpoRunConfig config, config::Places places) : config_(std::move(config)), places_(std::move(places)) {}

  void prepare() override;
  Json plan() override;
  Json run() override;

 private:
  Json resolved() const;
  void check_stop() const;
  std::shared_ptr<nn::DecoderClassifier> load_value_model() const;
  void make_policy();
  rl::ReferenceLogProbs reference();
  train::Task task();
  void save_policy(const fs::path& folder) const;
  void save_values(const fs::path& folder) const;
  void load_values(const fs::path& folder) const;

  PpoRunConfig config_;
  config::Places places_;
  c10::Device device_ = c10::kCPU;
  c10::ScalarType dtype_ = at::kFloat;
  train::Start start_;
  models::ResolvedModel model_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  rl::Prompts prompts_;
  std::shared_ptr<nn::CausalModel> policy_, reference_;
  std::optional<peft::Adapter> adapter_;
  std::shared_ptr<rl::PolicyAndValue> learners_;
  std::unique_ptr<dist::Parallel> parallel_ = dist::single_process();
};

void PpoRun::prepare() {
  device_ = resolve_device(config_.trainer.device);
  dtype_ = parse_dtype(config_.trainer.dtype);
  start_ = train::find_start(config_.trainer);
  model_ = models::resolve_model(config_.model, places_);
  if (!model_.weights)
    throw Error(Exit::usage, {.what = "a policy begins as a trained model", .where = places_.of("model.name_or_path")});
  std::error_code none;
  if (fs::equivalent(*model_.weights, config_.trainer.output_dir, none))
    throw Error(Exit::usage, {.what = "trainer.output_dir is the folder of the model that learns",
                              .where = config_.trainer.output_dir,
                              .hint = "give the run another folder"});
  const auto shape = models::make<nn::CausalModel>(model_.config, model_.where, {at::kFloat, c10::kMeta, &model_.typed_keys});
  tokenizer_ = text::load_tokenizer(config_.tokenizer.name_or_path);
  if (tokenizer_->vocab_size() > static_cast<size_t>(shape->vocab_size()))
    throw Error(Exit::usage, {.what = "the tokenizer has more tokens than the model's vocab_size",
                              .where = places_.of("model"),
                              .got = std::to_string(tokenizer_->vocab_size()),
                              .expected = "at most " + std::to_string(shape->vocab_size())});
  check_stop();
  const int64_t room = shape->max_positions() - config_.ppo.response_length;
  if (room < 1)
    throw Error(Exit::usage, {.what = "ppo.response_length leaves the model no room for a prompt",
                              .where = places_.of("ppo.response_length"),
                              .got = std::to_string(config_.ppo.response_length),
                              .expected = "less than " + std::to_string(shape->max_positions())});
  prompts_ = rl::open_prompts(config_.data, *tokenizer_, config_.tokenizer.name_or_path, room);
  check_reward_models(config_.rewards, *tokenizer_);
}

void PpoRun::check_stop() const {
  const auto& ppo = config_.ppo;
  if (!ppo.stop_token_id && ppo.stop_token == "eos" && tokenizer_->special_tokens().eos < 0)
    throw Error(Exit::usage, {.what = "the tokenizer has no end of text, which ppo.stop_token asks for",
                              .where = config_.tokenizer.name_or_path,
                              .hint = "set ppo.stop_token_id, or ppo.stop_token to none"});
  if (ppo.stop_token_id && *ppo.stop_token_id >= static_cast<int64_t>(tokenizer_->vocab_size()))
    throw Error(Exit::usage, {.what = "ppo.stop_token_id is no token",
                              .where = places_.of("ppo.stop_token_id"),
                              .got = std::to_string(*ppo.stop_token_id),
                              .expected = "less than " + std::to_string(tokenizer_->vocab_size())});
}

Json PpoRun::resolved() const {
  Json json = config::to_json(config_);
  json["model"] = {{"config", model_.config}};
  return json;
}

Json PpoRun::plan() {
  if (start_.checkpoint) train::read_trainer_state(*start_.checkpoint, resolved(), config::add_defaults<PpoRunConfig>);
  const int64_t batches = rl::ppo_batches(config_.ppo, config_.trainer, prompts_.all.size());
  const auto shape = models::make<nn::CausalModel>(model_.config, model_.where, {at::kFloat, c10::kMeta, &model_.typed_keys});
  return {{"model_type", model_.config.value("model_type", "")},
          {"parameters", shape->num_parameters()},
          {"device", device_.str()},
          {"dtype", config_.trainer.dtype},
          {"prompts", prompts_.all.size()},
          {"batch_size", rl::ppo_batch_size(config_.trainer)},
          {"batches", batches},
          {"steps", batches * config_.ppo.num_ppo_epochs * config_.ppo.num_mini_batches},
          {"output_dir", config_.trainer.output_dir}};
}

/// Of one label; a model without one gets a head that is drawn from the seed.
std::shared_ptr<nn::DecoderClassifier> PpoRun::load_value_model() const {
  if (config_.ppo.has_trunk_values()) return nullptr;
  const std::string path = config_.ppo.value_model == "own" ? model_.weights->string() : config_.ppo.value_model;
  models::LoadOptions load{.dtype = config_.lora ? dtype_ : at::kFloat,
                           .device = device_,
                           .head = nn::Head::sequence_classification,
                           .seed = static_cast<uint64_t>(config_.trainer.seed)};
  if (config_.ppo.value_model == "own") load.overrides["id2label"] = {{"0", "LABEL_0"}};
  auto model = std::dynamic_pointer_cast<nn::DecoderClassifier>(models::load_model(path, load));
  if (!model || model->num_labels() != 1)
    throw Error(Exit::usage, {.what = "ppo.value_model gives no single number to each token",
                              .where = path,
                              .expected = "a decoder's sequence classifier with one label, as rlhf-reward trains"});
  if (model->vocab_size() < policy_->vocab_size() || model->max_positions() < policy_->max_positions())
    throw Error(Exit::usage, {.what = "ppo.value_model does not read what the policy writes",
                              .where = path,
                              .got = detail::concat(model->vocab_size(), " tokens, ", model->max_positions(), " positions"),
                              .expected = detail::concat(policy_->vocab_size(), " and ", policy_->max_positions())});
  return model;
}

void PpoRun::make_policy() {
  const auto seed = static_cast<uint64_t>(config_.trainer.seed);
  const auto load = [&](c10::ScalarType dtype, bool map) {
    return models::load<nn::CausalModel>(
        model_.weights->string(), {.dtype = dtype, .device = device_, .map = map, .overrides = config_.model.config});
  };
  policy_ = load(config_.lora ? dtype_ : at::kFloat, false);
  if (config_.lora) {
    adapter_.emplace(peft::apply(*policy_, *config_.lora, seed));
  } else {
    reference_ = load(dtype_, true);
    reference_->eval();
    for (at::Tensor& parameter : reference_->parameters()) parameter.requires_grad_(false);
  }
  policy_->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  auto value_model = load_value_model();
  if (value_model) value_model->set_gradient_checkpointing(config_.trainer.gradient_checkpointing);
  learners_ = std::make_shared<rl::PolicyAndValue>(policy_, std::move(value_model));
  learners_->eval();
}

rl::ReferenceLogProbs PpoRun::reference() {
  const double temperature = config_.ppo.temperature;
  if (!adapter_)
    return [this, temperature](const rl::ResponseBatch& batch) {
      return rl::response_log_probs(*reference_, batch, temperature);
    };
  return [this, temperature](const rl::ResponseBatch& batch) {
    adapter_->set_weight(0);
    at::Tensor log_probs = rl::response_log_probs(*policy_, batch, temperature);
    adapter_->set_weight(1);
    return log_probs;
  };
}

void PpoRun::save_policy(const fs::path& folder) const {
  if (adapter_) {
    peft::save_adapter(*adapter_, folder, config_.model.name_or_path);
    return;
  }
  models::save(*policy_, folder, {.companions = model_.weights});
  tokenizer_->save(folder);
}

void PpoRun::save_values(const fs::path& folder) const {
  if (adapter_) return;  // among what is trained
  io::NamedTensors tensors;
  for (const auto& parameter : learners_->value().named_parameters())
    tensors.emplace_back(parameter.key(), parameter.value());
  io::save_tensors(folder / kValueFile, tensors);
}

void PpoRun::load_values(const fs::path& folder) const {
  const torch::autograd::AutoGradMode no_grad(false);
  const std::string where = (folder / kValueFile).string();
  const auto saved = io::load_tensors(where);
  const std::map<std::string, at::Tensor> by_name(saved.begin(), saved.end());
  for (auto& parameter : learners_->value().named_parameters()) {
    const auto found = by_name.find(parameter.key());
    if (found == by_name.end() || found->second.sizes() != parameter.value().sizes() ||
        found->second.scalar_type() != parameter.value().scalar_type())
      throw Error(Exit::file, {.what = "tensor '" + parameter.key() + "' is missing or of another shape or type", .where = where});
    parameter.value().copy_(found->second);
  }
}

train::Task PpoRun::task() {
  train::Task task{.module = learners_,
                   .parallel = parallel_.get(),
                   .save_model = [this](const fs::path& folder) { save_policy(folder); },
                   .saves_all = !adapter_,
                   .converts = !adapter_,
                   .save_state = [this](const fs::path& folder) { save_values(folder); },
                   .run_config = resolved(),
                   .add_defaults = config::add_defaults<PpoRunConfig>};
  if (!adapter_)
    task.load_weights = [this](const fs::path& folder) {
      models::load_weights(*policy_, io::WeightFiles(folder), folder.string());
      load_values(folder);
    };
  if (adapter_)
    for (const auto& [name, rate] : adapter_->loraplus_learning_rates(config_.optimizer.learning_rate))
      task.learning_rates.emplace("policy." + name, rate);
  return task;
}

Json PpoRun::run() {
  make_policy();
  const rl::Rewards rewards = open_rewards(config_.rewards, dtype_, device_, config_.ppo.local_rollout_forward_batch_size);
  log::info(format_count(static_cast<double>(train::count_parameters(*learners_, true))) + " parameters are trained, on " +
            std::to_string(prompts_.all.size()) + " prompts, on " + device_.str() + " in " + config_.trainer.dtype);
  const Json sources = {{"sources", Json::array({{{"role", "prompts"},
                                                  {"path", config_.data.train[0].path},
                                                  {"rows", prompts_.all.size()},
                                                  {"identity", prompts_.identity}}})}};
  const std::string& output_dir = config_.trainer.output_dir;
  train::RunLog log_of_run(output_dir, fs::path(output_dir).filename().string(),
                           provenance(sources, device_) + config::dump(config_));
  train::Task task = this->task();
  task.observer = &log_of_run;
  rl::PpoParts parts{.model = learners_,
                     .reference = reference(),
                     .prompts = &prompts_,
                     .shuffle_prompts = config_.data.shuffle,
                     .rewards = &rewards,
                     .tokenizer = tokenizer_.get(),
                     .on_sample = [&](int64_t step, const rl::Response& response, double score) {
                       log_of_run.sampled(step, response.prompt->text, response.prompt->text + response.text, score);
                     }};
  rl::PpoTrainer trainer(config_.ppo, config_.trainer, config_.optimizer, config_.scheduler, std::move(task), std::move(parts));
  const train::RunResult result = trainer.run(start_);
  const bool interrupted = result.end == train::RunResult::End::interrupted;
  exit_code_ = static_cast<int>(interrupted ? Exit::stopped_saved : Exit::ok);
  return {{"output_dir", output_dir},
          {"end", interrupted ? "interrupted" : "finished"},
          {"step", result.step},
          {"tokens", result.tokens},
          {"seconds", result.seconds},
          {"figures", trainer.figures()},
          {"skipped_steps", result.nonfinite_steps},
          {"checkpoint", result.checkpoint}};
}

}  // namespace

std::unique_ptr<TrainingCommand> make_ppo(PpoRunConfig config, config::Places places) {
  return std::make_unique<PpoRun>(std::move(config), std::move(places));
}

}  // namespace llmtk
