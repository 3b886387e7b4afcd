#include "policy_run.h"

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "models/registry.h"
#include "peft/adapter.h"
#include "policy_rewards.h"
#include "rl/policy_trainer.h"
#include "train/parameters.h"
#include "train/run_log.h"

namespace llmtk {

void validate_policy(const PolicyConfig& config, const std::string& method, config::Problems& problems) {
  const train::TrainerConfig plain, &trainer = config.trainer;
  const auto idle = [&](const char* key, bool given, const std::string& hint) {
    if (given) problems.add(std::string("trainer.") + key, {.what = "has no effect with " + method, .hint = hint});
  };
  const char* leave = "leave it out";
  idle("logging_steps", trainer.logging_steps != plain.logging_steps, "metrics are written for each batch of responses");
  idle("eval_steps", trainer.eval_steps != plain.eval_steps, leave);
  idle("sample_steps", trainer.sample_steps != plain.sample_steps, "set num_samples");
  idle("eval_on_start", trainer.eval_on_start, leave);
  idle("load_best_model_at_end", trainer.load_best_model_at_end, leave);
  idle("metric_for_best_model", trainer.metric_for_best_model != plain.metric_for_best_model, leave);
  idle("greater_is_better", trainer.greater_is_better.has_value(), leave);
  idle("early_stopping_patience", trainer.early_stopping_patience != plain.early_stopping_patience, leave);
  idle("per_device_eval_batch_size", trainer.per_device_eval_batch_size != plain.per_device_eval_batch_size, leave);
  if (config.model.name_or_path.empty())
    problems.add("model.name_or_path", {.what = "a policy begins as a trained model", .expected = "its folder or name"});
  try {
    resolve_device(trainer.device);
  } catch (const Error& error) {
    problems.add("trainer.device", error.parts());
  }
  if (!config.lora) return;
  const peft::LoraConfig& lora = *config.lora;
  const std::string base = "the reference is the base under a disabled adapter";
  if (lora.lora_dropout > 0)
    problems.add("lora.lora_dropout", {.what = "has no effect: " + method + " trains without dropout", .hint = leave});
  if (lora.bias != "none")
    problems.add("lora.bias", {.what = base + ": it cannot train the base's biases", .expected = "none"});
  if (!lora.modules_to_save.empty())
    problems.add("lora.modules_to_save", {.what = base + ": it cannot train modules of the base", .hint = leave});
  if (lora.is_pissa())
    problems.add("lora.init_lora_weights", {.what = base + ", which PiSSA takes apart", .expected = "true or gaussian"});
}

namespace fs = std::filesystem;
using Json = PolicyRun::Json;

void PolicyRun::prepare() {
  device_ = resolve_device(config().trainer.device);
  dtype_ = parse_dtype(config().trainer.dtype);
  start_ = train::find_start(config().trainer);
  model_ = models::resolve_model(config().model, places_);
  if (!model_.weights)
    throw Error(Exit::usage, {.what = "a policy begins as a trained model", .where = places_.of("model.name_or_path")});
  std::error_code none;
  if (fs::equivalent(*model_.weights, config().trainer.output_dir, none))
    throw Error(Exit::usage, {.what = "trainer.output_dir is the folder of the model that learns",
                              .where = config().trainer.output_dir,
                              .hint = "give the run another folder"});
  shape_ = models::make<nn::CausalModel>(model_.config, model_.where, {at::kFloat, c10::kMeta, &model_.typed_keys});
  tokenizer_ = text::load_tokenizer(config().tokenizer.name_or_path);
  if (tokenizer_->vocab_size() > static_cast<size_t>(shape_->vocab_size()))
    throw Error(Exit::usage, {.what = "the tokenizer has more tokens than the model's vocab_size",
                              .where = places_.of("model"),
                              .got = std::to_string(tokenizer_->vocab_size()),
                              .expected = "at most " + std::to_string(shape_->vocab_size())});
  check_stop();
  const Section part = section();
  const int64_t room = shape_->max_positions() - part.length;
  if (room < 1)
    throw Error(Exit::usage, {.what = std::string(part.length_key) + " leaves the model no room for a prompt",
                              .where = places_.of(part.length_key),
                              .got = std::to_string(part.length),
                              .expected = "less than " + std::to_string(shape_->max_positions())});
  if (config().lora) peft::apply(*shape_, *config().lora, static_cast<uint64_t>(config().trainer.seed));
  prompts_ = rl::open_prompts(config().data, *tokenizer_, config().tokenizer.name_or_path, room);
  for (const rl::Prompt& prompt : prompts_.all) longest_ = std::max(longest_, static_cast<int64_t>(prompt.ids.size()));
  longest_ += part.length;
  reward_parameters_ = check_rewards(config().rewards, *tokenizer_, longest_);
  prepare_method();
}

void PolicyRun::check_stop() const {
  const Section part = section();
  const std::string key = part.name;
  if (!part.end.stop_token_id && part.end.stop_token == "eos" && tokenizer_->special_tokens().eos < 0)
    throw Error(Exit::usage, {.what = "the tokenizer has no end of text, which " + key + ".stop_token asks for",
                              .where = config().tokenizer.name_or_path,
                              .hint = "set " + key + ".stop_token_id, or " + key + ".stop_token to none"});
  const auto tokens = static_cast<int64_t>(tokenizer_->vocab_size());
  if (part.end.stop_token_id.value_or(0) >= tokens)
    throw Error(Exit::usage, {.what = key + ".stop_token_id is no token",
                              .where = places_.of(key + ".stop_token_id"),
                              .got = std::to_string(*part.end.stop_token_id),
                              .expected = "less than " + std::to_string(tokens)});
}

Json PolicyRun::resolved() const {
  Json json = json_of_config();
  json["model"] = {{"config", model_.config}};
  return json;
}

Json PolicyRun::plan() {
  if (start_.checkpoint) train::read_trainer_state(*start_.checkpoint, resolved(), add_defaults());
  const rl::PolicyPlan plan = make_plan();
  const RunShape run = run_shape(plan);
  const Needs needs = needs_of(run);
  check_needs(run, needs);
  Json json = describe(run, needs);
  json["prompts"] = prompts_.all.size();
  json["batch_size"] = plan.responses;
  json["batches"] = plan.batches;
  if (start_.checkpoint) json["resume_from"] = start_.checkpoint->path.string();
  return json;
}

RunShape PolicyRun::run_shape(const rl::PolicyPlan& plan) const {
  const bool reference = needs_reference() && !config().lora;
  return {.trainer = config().trainer,
          .optimizer = config().optimizer,
          .device = device_,
          .steps = plan.steps(),
          .model = *shape_,
          .max_length = longest_,
          .saves_all = !config().lora,
          .others = reward_parameters_ + (reference ? shape_->num_parameters() : 0),
          .learners = other_learners()};
}

void PolicyRun::make_policy() {
  const auto seed = static_cast<uint64_t>(config().trainer.seed);
  const auto load = [&](c10::ScalarType dtype, bool map) {
    return models::load<nn::CausalModel>(
        model_.weights->string(), {.dtype = dtype, .device = device_, .map = map, .overrides = config().model.config});
  };
  policy_ = load(config().lora ? dtype_ : at::kFloat, false);
  if (config().lora) {
    adapter_.emplace(peft::apply(*policy_, *config().lora, seed));
  } else if (needs_reference()) {
    reference_ = load(dtype_, true);
    reference_->eval();
    for (at::Tensor& parameter : reference_->parameters()) parameter.requires_grad_(false);
  }
  policy_->set_gradient_checkpointing(config().trainer.gradient_checkpointing);
  policy_->eval();
}

rl::ReferenceLogProbs PolicyRun::reference() {
  const double temperature = section().temperature;
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

void PolicyRun::save_policy(const fs::path& folder) const {
  if (adapter_) {
    peft::save_adapter(*adapter_, folder, config().model.name_or_path);
    return;
  }
  models::save(*policy_, folder, {.companions = model_.weights});
  tokenizer_->save(folder);
}

train::Task PolicyRun::task(std::shared_ptr<torch::nn::Module> learners, const std::string& policy_prefix) {
  train::Task task{.module = std::move(learners),
                   .parallel = parallel_.get(),
                   .save_model = [this](const fs::path& folder) { save_policy(folder); },
                   .saves_all = !adapter_,
                   .converts = !adapter_,
                   .run_config = resolved(),
                   .add_defaults = add_defaults()};
  if (adapter_) {  // everything is among what is trained
    for (const auto& [name, rate] : adapter_->loraplus_learning_rates(config().optimizer.learning_rate))
      task.learning_rates.emplace(policy_prefix + name, rate);
    return task;
  }
  task.save_state = [this](const fs::path& folder) { save_others(folder); };
  task.load_weights = [this](const fs::path& folder) {
    models::load_weights(*policy_, io::WeightFiles(folder), folder.string());
    load_others(folder);
  };
  return task;
}

Json PolicyRun::run() {
  const rl::PolicyPlan plan = make_plan();
  const RunShape shape = run_shape(plan);
  check_needs(shape, needs_of(shape));
  make_policy();
  std::shared_ptr<torch::nn::Module> learners;
  std::string policy_prefix;
  const auto method = make_method(learners, policy_prefix);
  const rl::Rewards rewards = open_rewards(config().rewards, dtype_, device_, section().at_once);
  log::info(format_count(static_cast<double>(train::count_parameters(*learners, true))) + " parameters are trained, on " +
            std::to_string(prompts_.all.size()) + " prompts, on " + device_.str() + " in " + config().trainer.dtype);
  const Json sources = {{"sources", Json::array({{{"role", "prompts"},
                                                  {"path", config().data.train[0].path},
                                                  {"rows", prompts_.all.size()},
                                                  {"identity", prompts_.identity}}})}};
  const std::string& output_dir = config().trainer.output_dir;
  train::RunLog log_of_run(output_dir, fs::path(output_dir).filename().string(),
                           provenance(sources, device_) + resolved_yaml());
  train::Task task = this->task(std::move(learners), policy_prefix);
  task.observer = &log_of_run;
  rl::PolicyParts parts{.method = method.get(),
                        .prompts = &prompts_,
                        .shuffle_prompts = config().data.shuffle,
                        .rewards = &rewards,
                        .tokenizer = tokenizer_.get(),
                        .on_sample = [&](int64_t step, int64_t slot, const rl::Response& response, double score) {
                          const std::string& prompt = response.prompt->text;
                          log_of_run.rated(step, slot, prompt, prompt + response.text, score);
                        }};
  rl::PolicyTrainer trainer(plan, config().trainer, config().optimizer, config().scheduler, std::move(task),
                            std::move(parts));
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

}  // namespace llmtk
