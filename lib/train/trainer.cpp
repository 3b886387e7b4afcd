#include "train/trainer.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <map>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "io/json.h"
#include "kernels/optimizer.h"
#include "train/random_state.h"

namespace llmtk::train {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr const char* kStateFile = "trainer_state.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr const char* kTrainedFile = "trained.safetensors";
constexpr const char* kRandomFile = "random_state.safetensors";
constexpr uint64_t kSmallFiles = 4 << 20;  ///< config, tokenizer, states, manifest

io::NamedTensors named(const std::vector<Parameter>& parameters) {
  io::NamedTensors tensors;
  for (const Parameter& parameter : parameters) tensors.emplace_back(parameter.name, parameter.tensor);
  return tensors;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

uint64_t bytes_of(const std::vector<at::Tensor>& tensors) {
  uint64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += tensor.nbytes();
  return bytes;
}

uint64_t bytes_of(const io::NamedTensors& tensors) {
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  return bytes;
}

void compare(const Json& saved_config, const Json& run_config, const std::string& where) {
  std::string refused;
  for (const auto& change : compare_configs(saved_config, run_config)) {
    const std::string text = detail::concat(change.key, " was ", change.before.empty() ? "not set" : change.before,
                                            ", is ", change.after.empty() ? "not set" : change.after);
    if (change.kind == ConfigChange::Kind::refused)
      refused += (refused.empty() ? "" : "; ") + text;
    else
      log::warn("resuming with another config: " + text);
  }
  if (!refused.empty())
    throw Error(Exit::usage, {.what = "cannot go on from this checkpoint with another config: " + refused,
                              .where = where,
                              .hint = "put the old values back, or begin anew in another trainer.output_dir"});
}

}  // namespace

Json read_trainer_state(const CheckpointFolder& checkpoint, const Json& run_config, const AddDefaults& add_defaults) {
  const std::string where = (checkpoint.path / kStateFile).string();
  Json saved = io::read_json(checkpoint.path / kStateFile);
  if (saved.value("format", "") != "llmtk-trainer-state" || saved.value("version", 0) != 1)
    throw Error(Exit::file, {.what = "not a trainer's state that this program reads", .where = where});
  for (const char* key : {"config", "loop", "data"})
    if (!saved.contains(key))
      throw Error(Exit::file, {.what = std::string("key '") + key + "' is missing", .where = where});
  if (add_defaults) add_defaults(saved["config"]);
  compare(saved["config"], run_config, where);
  return saved;
}

Trainer::Trainer(const TrainerConfig& trainer, const OptimizerConfig& optimizer, const SchedulerConfig& scheduler,
                 Task task)
    : config_(trainer), optimizer_config_(optimizer), task_(std::move(task)), device_(c10::kCPU) {
  LLMTK_CHECK(task_.module && task_.loss && task_.train && task_.parallel && task_.save_model);
  LLMTK_CHECK(task_.load_weights || !task_.saves_all);
  best_metric_ = best_metric(config_, task_.evaluator);
  total_steps_ = total_steps(config_, scheduler, *task_.train);
  schedule_ = scheduler.make(total_steps_);
  warn_of_length(config_, scheduler, total_steps_);
  if (config_.deterministic) {
    ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);  // cuBLAS reads it at its first product
    at::globalContext().setDeterministicAlgorithms(true, false);
  }
  optimizer_ = make_optimizer(optimizer, *task_.module,
                              task_.converts ? std::optional(parse_dtype(config_.dtype)) : std::nullopt,
                              task_.learning_rates);
  gradients_ = std::make_unique<Gradients>(optimizer_->parameters(), config_.gradient_accumulation_steps > 1);
  device_ = optimizer_->parameters().front().tensor.device();
  if (task_.eval) eval_start_ = task_.eval->state();
}

RunResult Trainer::run(const Start& start) {
  const fs::path output = config_.output_dir;
  const RunLock lock(output);
  remove_unfinished(output);
  seed_generators(static_cast<uint64_t>(config_.seed) + static_cast<uint64_t>(task_.parallel->rank()), device_);
  if (start.checkpoint) resume(*start.checkpoint);
  // Only what can go on may cost an older run its files.
  if (start.clear) clear_run(output);
  if (start.checkpoint && task_.parallel->is_main()) abandon_checkpoints(output, state_.step);

  const StopSignals signals;
  task_.module->train(task_.dropout);
  if (task_.observer) task_.observer->began(state_.step, total_steps_);
  const bool starts = task_.eval && config_.eval_on_start && state_.step == 0 && state_.last_eval_step < 0;
  if (starts && !evaluate(signals)) {
    save();
    return result(RunResult::End::interrupted, signals.received());
  }
  const auto due = [this](int64_t every, bool last) {
    return state_.step > 0 && (last || (every > 0 && state_.step % every == 0));
  };
  // What is due after a step is done at the top, so that a resumed run does what the stopped one did not get to.
  while (true) {
    bool last = finished();
    if (task_.eval && state_.last_eval_step != state_.step && due(config_.eval_steps, last) && !evaluate(signals))
      break;
    last = finished();  // the evaluation may have ended it
    if (task_.sample && state_.last_sample_step != state_.step && due(config_.sample_steps, last)) sample();
    // During a row of skipped steps nothing is saved: the newest checkpoint stays one from before the trouble.
    if (saved_step_ != state_.step && state_.nonfinite_in_row == 0 && due(config_.save_steps, last)) save();
    if (last) {
      save_final();
      if (task_.observer) task_.observer->finished();
      return result(state_.stopped_early ? RunResult::End::stopped_early : RunResult::End::finished, 0);
    }
    const Step step = wants_stop(signals) ? Step::interrupted : train_step(signals);
    if (step == Step::interrupted) break;
    data_ended_ = step == Step::no_data;
    if (data_ended_ && state_.step == 0)
      throw Error(Exit::data, {.what = "the training data gives not one batch",
                               .hint = "use more text, shorter sequences or a smaller batch"});
  }
  if (saved_step_ != state_.step) save();
  return result(RunResult::End::interrupted, signals.received());
}

bool Trainer::wants_stop(const StopSignals& signals) const {
  return task_.parallel->sum(signals.received() != 0 ? 1 : 0) > 0;
}

bool Trainer::finished() const {
  return data_ended_ || state_.stopped_early || (total_steps_ > 0 && state_.step >= total_steps_);
}

bool Trainer::fetch(std::vector<data::Batch>& batches) {
  batches.clear();
  data::Batch batch;
  while (static_cast<int64_t>(batches.size()) < config_.gradient_accumulation_steps && task_.train->next(batch))
    batches.push_back(std::move(batch));
  return !batches.empty();
}

/// One optimizer step. Its micro-batches are fetched first, so that each one's loss is divided by the target tokens of
/// all of them: however a batch is cut into micro-batches, the gradient is that of the mean over its tokens.
Trainer::Step Trainer::train_step(const StopSignals& signals) {
  const auto begin = Clock::now();
  // Where the step begins, to go back to when a signal comes before its last micro-batch.
  const bool several = config_.gradient_accumulation_steps > 1;
  const Json data_before = several ? task_.train->state() : Json();
  const io::NamedTensors random_before = several ? random_state(device_) : io::NamedTensors();

  std::vector<data::Batch> batches;
  if (!fetch(batches)) return Step::no_data;
  int64_t tokens = 0, targets = 0;
  for (const auto& batch : batches) {
    tokens += batch.tokens();
    targets += batch.targets;
  }
  tokens = task_.parallel->sum(tokens);
  targets = task_.parallel->sum(targets);
  if (targets == 0)
    throw Error(Exit::data, {.what = "step " + std::to_string(state_.step + 1) + " has no token to train on",
                             .hint = "every label of its rows is masked: look at the data's prompts and lengths"});

  if (task_.metrics) task_.metrics->clear();
  at::Tensor total;
  for (size_t i = 0; i < batches.size(); ++i) {
    at::Tensor loss = task_.loss(batches[i], 1.0 / static_cast<double>(targets));
    loss.backward();
    total = total.defined() ? total + loss.detach() : loss.detach();
    if (i + 1 < batches.size() && wants_stop(signals)) {
      gradients_->clear();
      task_.train->load_state(data_before);
      load_random_state(random_before, device_, 0, "the step's begin");
      return Step::interrupted;
    }
  }
  std::vector<at::Tensor> gradients = gradients_->tensors();
  std::vector<at::Tensor> reached;
  for (const auto& gradient : gradients)
    if (gradient.defined()) reached.push_back(gradient);
  task_.parallel->sum_gradients(reached);
  task_.parallel->sum(total);

  const double loss = total.item<double>();
  const double norm = std::sqrt(kernels::squared_norm(reached));
  const double rate = optimizer_config_.learning_rate * schedule_.factor(state_.step);
  const bool finite = std::isfinite(loss) && std::isfinite(norm);
  if (finite) {
    const double limit = optimizer_config_.max_grad_norm;
    const double clip = limit > 0 ? std::min(1.0, limit / (norm + 1e-6)) : 1.0;  // as torch's clip_grad_norm_
    optimizer_->step(rate, clip, gradients);
  }
  gradients.clear();
  reached.clear();
  gradients_->clear();

  ++state_.step;
  state_.tokens += tokens;
  if (finite) {
    state_.target_tokens += targets;
    state_.window_loss += loss * static_cast<double>(targets);
    state_.window_targets += targets;
    state_.nonfinite_in_row = 0;
    state_.last_loss = loss;
    note_metrics();
  }
  report(loss, rate, norm, seconds_since(begin), tokens);
  if (!finite) note_nonfinite(loss, norm);
  return Step::done;
}

/// Adds up the step's figures, of all ranks, in the window that is logged next.
void Trainer::note_metrics() {
  if (!task_.metrics || task_.metrics->empty()) return;
  auto& sums = task_.metrics->all();
  std::vector<double> numbers;
  for (const auto& [name, sum] : sums) numbers.insert(numbers.end(), {sum.first, sum.second});
  at::Tensor all = at::tensor(numbers, at::kDouble).to(device_);
  task_.parallel->sum(all);
  all = all.cpu();
  const double* number = all.const_data_ptr<double>();
  for (auto& [name, sum] : sums) {
    sum = {number[0], number[1]};
    number += 2;
  }
  state_.window_metrics.add(*task_.metrics);
}

void Trainer::note_nonfinite(double loss, double norm) {
  ++state_.nonfinite_steps;
  ++state_.nonfinite_in_row;
  const std::string what =
      std::isfinite(loss) ? detail::concat("the gradient's norm is ", norm) : detail::concat("the loss is ", loss);
  log::warn(detail::concat("step ", state_.step, ": ", what, "; the step is skipped (", state_.nonfinite_in_row, " of ",
                           config_.max_nonfinite_steps, " in a row)"));
  if (state_.nonfinite_in_row < config_.max_nonfinite_steps) return;
  if (task_.observer) task_.observer->sync();
  const auto good = newest_whole_checkpoint(config_.output_dir);
  throw Error(
      Exit::diverged,
      {.what = detail::concat("training diverged: ", what, " at step ", state_.step, ", for ", state_.nonfinite_in_row,
                              " steps in a row"),
       .hint = (good ? "the last good checkpoint is " + good->path.string() : "no checkpoint was saved before") +
               "; lower optimizer.learning_rate, lengthen the warm-up or lower optimizer.max_grad_norm"});
}

void Trainer::report(double loss, double learning_rate, double norm, double seconds, int64_t tokens) {
  state_.seconds += seconds;
  log_seconds_ += seconds;
  log_tokens_ += tokens;
  StepReport report{.step = state_.step,
                    .total_steps = total_steps_,
                    .loss = loss,
                    .learning_rate = learning_rate,
                    .grad_norm = norm,
                    .tokens_per_second = static_cast<double>(log_tokens_) / log_seconds_,
                    .tokens = state_.tokens,
                    .target_tokens = state_.target_tokens,
                    .seconds = state_.seconds};
  if (task_.peak_flops > 0) report.share_of_peak = report.tokens_per_second * task_.flops_per_token / task_.peak_flops;
  if (task_.observer) task_.observer->stepped(report);
  if (state_.step % config_.logging_steps != 0) return;
  // A window of skipped steps only has no mean: its NaN says so.
  report.loss =
      state_.window_targets > 0 ? state_.window_loss / static_cast<double>(state_.window_targets) : std::nan("");
  if (task_.metrics) report.metrics = state_.window_metrics.means();
  if (task_.observer) task_.observer->logged(report);
  state_.window_loss = 0;
  state_.window_metrics.clear();
  state_.window_targets = 0;
  log_seconds_ = 0;
  log_tokens_ = 0;
}

bool Trainer::evaluate(const StopSignals& signals) {
  const torch::autograd::AutoGradMode no_grad(false);
  task_.eval->load_state(eval_start_);
  task_.module->eval();
  if (task_.evaluator) task_.evaluator->begin();
  double sum = 0;
  int64_t targets = 0;
  data::Batch batch;
  bool stopped = false;
  while (!(stopped = wants_stop(signals)) && task_.eval->next(batch)) {
    if (batch.targets == 0) continue;
    at::Tensor loss = task_.evaluator ? task_.evaluator->loss(batch) : task_.loss(batch, 1.0);
    task_.parallel->sum(loss);
    sum += loss.item<double>();
    targets += task_.parallel->sum(batch.targets);
  }
  task_.module->train(task_.dropout);
  if (stopped) return false;
  if (targets == 0)
    throw Error(Exit::data,
                {.what = "the evaluation data has no token to predict", .hint = "give more of it, or none"});
  eval_metrics_ = task_.evaluator ? task_.evaluator->metrics() : Json();
  note_evaluation(sum / static_cast<double>(targets), targets);
  return true;
}

double Trainer::metric_of(double loss) const {
  if (best_metric_.name == "loss") return loss;
  if (best_metric_.name == "perplexity") return std::exp(loss);
  const Json& value = eval_metrics_.at(best_metric_.name);
  return value.is_number() ? value.get<double>() : std::nan("");
}

void Trainer::note_evaluation(double loss, int64_t targets) {
  state_.last_eval_step = state_.step;
  state_.last_eval_loss = loss;
  const double value = metric_of(loss), threshold = config_.early_stopping_threshold;
  const bool counts = state_.step > 0 && std::isfinite(value);  // what stands before training has no checkpoint
  const bool best = counts && (!state_.best_metric || best_metric_.better(value, *state_.best_metric));
  const bool gain = best && (!state_.best_metric || std::abs(value - *state_.best_metric) > threshold);
  if (best) {
    state_.best_metric = value;
    state_.best_step = state_.step;
  }
  if (state_.step > 0 && std::isfinite(loss)) state_.best_eval_loss = std::min(loss, state_.best_eval_loss.value_or(loss));
  if (state_.step > 0) state_.evaluations_without_gain = gain ? 0 : state_.evaluations_without_gain + 1;
  const bool has_perplexity = !task_.evaluator || task_.evaluator->has_perplexity();
  if (task_.observer)
    task_.observer->evaluated({.step = state_.step,
                               .loss = loss,
                               .perplexity = has_perplexity ? std::exp(loss) : 0,
                               .target_tokens = targets,
                               .best = best,
                               .metrics = eval_metrics_});
  if (config_.early_stopping_patience > 0 && state_.evaluations_without_gain >= config_.early_stopping_patience) {
    log::info(detail::concat("step ", state_.step, ": stopping early, ", state_.evaluations_without_gain,
                             " evaluations without a better ", best_metric_.name,
                             state_.best_metric ? detail::concat(" (best ", *state_.best_metric, " at step ",
                                                                 state_.best_step, ")")
                                                : ": none was finite"));
    state_.stopped_early = true;
  }
}

void Trainer::sample() {
  const torch::autograd::AutoGradMode no_grad(false);
  const KeepRandomState keep(device_);
  state_.last_sample_step = state_.step;
  if (!task_.parallel->is_main()) return;
  task_.module->eval();
  task_.sample(state_.step);
  task_.module->train(task_.dropout);
}

uint64_t Trainer::bytes_of_model() const {
  if (task_.saves_all) return bytes_of(task_.module->parameters());
  uint64_t bytes = 0;
  for (const auto& parameter : optimizer_->parameters()) bytes += parameter.tensor.nbytes();
  return bytes;
}

void Trainer::load_weights(const fs::path& checkpoint) {
  if (task_.load_state) task_.load_state(checkpoint);
  if (task_.saves_all) return task_.load_weights(checkpoint);
  const torch::autograd::AutoGradMode no_grad(false);
  const std::string where = (checkpoint / kTrainedFile).string();
  const io::NamedTensors saved = io::load_tensors(where), own = named(optimizer_->parameters());
  if (saved.size() != own.size())
    throw Error(Exit::file, {.what = "another number of trained parameters",
                             .where = where,
                             .got = std::to_string(saved.size()),
                             .expected = std::to_string(own.size())});
  const std::map<std::string, at::Tensor> by_name(saved.begin(), saved.end());
  for (const auto& [name, tensor] : own) {
    const auto found = by_name.find(name);
    if (found == by_name.end() || found->second.sizes() != tensor.sizes() ||
        found->second.scalar_type() != tensor.scalar_type())
      throw Error(Exit::file, {.what = "tensor '" + name + "' is missing or of another shape or type", .where = where});
    tensor.copy_(found->second);
  }
}

void Trainer::save() {
  if (task_.observer) task_.observer->sync();
  if (task_.parallel->is_main()) {
    const io::NamedTensors optimizer = optimizer_->state();
    CheckpointWriter writer(config_.output_dir, state_.step,
                            bytes_of_model() + bytes_of(optimizer) + kSmallFiles);
    task_.save_model(writer.folder());
    if (!task_.saves_all) io::save_tensors(writer.folder() / kTrainedFile, named(optimizer_->parameters()));
    io::save_tensors(writer.folder() / kOptimizerFile, optimizer);
    io::save_tensors(writer.folder() / kRandomFile, random_state(device_));
    if (task_.save_state) task_.save_state(writer.folder());
    io::write_json(writer.folder() / kStateFile, {{"format", "llmtk-trainer-state"},
                                                  {"version", 1},
                                                  {"loop", state_.to_json()},
                                                  {"data", task_.train->state()},
                                                  {"config", task_.run_config}});
    const fs::path path = writer.commit();
    log::debug("saved " + path.string());
    // The best model's checkpoint is kept only where there is one of that very step.
    rotate_checkpoints(config_.output_dir, config_.save_total_limit, state_.best_step);
  }
  task_.parallel->barrier();
  saved_step_ = state_.step;
}

void Trainer::resume(const CheckpointFolder& checkpoint) {
  const Json saved = read_trainer_state(checkpoint, task_.run_config, task_.add_defaults);
  state_ = LoopState::from_json(saved["loop"], (checkpoint.path / kStateFile).string());
  load_weights(checkpoint.path);
  optimizer_->load_state(io::load_tensors(checkpoint.path / kOptimizerFile),
                         (checkpoint.path / kOptimizerFile).string());
  load_random_state(io::load_tensors(checkpoint.path / kRandomFile), device_,
                    static_cast<uint64_t>(config_.seed) + static_cast<uint64_t>(state_.step),
                    (checkpoint.path / kRandomFile).string());
  task_.train->load_state(saved["data"]);
  if (fs::absolute(checkpoint.path).parent_path().lexically_normal() ==
      (fs::absolute(config_.output_dir) / "").lexically_normal().parent_path())
    saved_step_ = state_.step;
  log::info(detail::concat("going on from ", checkpoint.path.string(), " (step ", state_.step, ")"));
}

void Trainer::save_final() {
  const bool best = config_.load_best_model_at_end && state_.best_step >= 0 && state_.best_step != state_.step;
  if (best) {
    const fs::path path = fs::path(config_.output_dir) / ("checkpoint-" + std::to_string(state_.best_step));
    if (const auto damage = checkpoint_damage(path))
      throw Error(Exit::file, {.what = "the best checkpoint is not whole: " + *damage, .where = path.string()});
    load_weights(path);
    log::info(detail::concat("the final model is that of step ", state_.best_step, ", with the best evaluation: ",
                             best_metric_.name, " ", *state_.best_metric));
  }
  if (task_.parallel->is_main()) {
    FolderUpdate update(config_.output_dir, bytes_of_model() + kSmallFiles);
    task_.save_model(update.folder());
    update.commit();
    remove_abandoned(config_.output_dir);
  }
  if (task_.observer) task_.observer->sync();
  task_.parallel->barrier();
}

RunResult Trainer::result(RunResult::End end, int signal) const {
  RunResult result{.end = end,
                   .step = state_.step,
                   .tokens = state_.tokens,
                   .target_tokens = state_.target_tokens,
                   .seconds = state_.seconds,
                   .last_loss = state_.last_loss,
                   .eval_loss = state_.last_eval_loss,
                   .best_eval_loss = state_.best_eval_loss,
                   .best_metric = state_.best_metric,
                   .best_step = state_.best_step,
                   .eval_metrics = eval_metrics_,
                   .nonfinite_steps = state_.nonfinite_steps,
                   .signal = signal};
  const auto all = list_checkpoints(config_.output_dir);
  if (!all.empty()) result.checkpoint = all.back().path.string();
  return result;
}

}  // namespace llmtk::train
