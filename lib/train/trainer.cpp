#include "train/trainer.h"

#include <torch/csrc/autograd/grad_mode.h>

#include <chrono>
#include <cmath>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "train/random_state.h"
#include "train/run_files.h"
#include "train/update.h"

namespace llmtk::train {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

Trainer::Trainer(const TrainerConfig& trainer, const OptimizerConfig& optimizer, const SchedulerConfig& scheduler,
                 Task task)
    : config_(trainer), optimizer_config_(optimizer), task_(std::move(task)), device_(c10::kCPU) {
  LLMTK_CHECK(task_.module && task_.loss && task_.train && task_.parallel && task_.save_model);
  LLMTK_CHECK(task_.load_weights || !task_.saves_all);
  best_metric_ = best_metric(config_, task_.evaluator);
  total_steps_ = total_steps(config_, scheduler, *task_.train);
  schedule_ = scheduler.make(total_steps_);
  warn_of_length(config_, scheduler, total_steps_);
  if (config_.deterministic) be_deterministic();
  optimizer_ = make_optimizer(optimizer, *task_.module,
                              task_.converts ? std::optional(parse_dtype(config_.dtype)) : std::nullopt,
                              task_.learning_rates);
  gradients_ = std::make_unique<Gradients>(optimizer_->parameters(), config_.gradient_accumulation_steps > 1);
  device_ = optimizer_->parameters().front().tensor.device();
  files_ = std::make_unique<RunFiles>(config_, task_, *optimizer_, device_);
  if (task_.eval) eval_start_ = task_.eval->state();
}

Trainer::~Trainer() = default;

RunResult Trainer::run(const Start& start) {
  const RunLock lock(config_.output_dir);
  files_->begin(start, [this](const CheckpointFolder& checkpoint) {
    resume(checkpoint);
    return state_.step;
  });

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
  const Update done = update(*optimizer_, *gradients_, optimizer_config_, schedule_.factor(state_.step), total,
                             *task_.parallel);

  ++state_.step;
  state_.tokens += tokens;
  if (done.finite) {
    state_.target_tokens += targets;
    state_.window_loss += done.loss * static_cast<double>(targets);
    state_.window_targets += targets;
    state_.nonfinite_in_row = 0;
    state_.last_loss = done.loss;
    note_metrics();
  }
  report(done.loss, done.learning_rate, done.norm, seconds_since(begin), tokens);
  if (!done.finite) note_skipped(done, config_, state_, task_.observer);
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

void Trainer::save() {
  files_->save(state_.step, state_.to_json(), task_.train->state(), state_.best_step);
  saved_step_ = state_.step;
}

void Trainer::resume(const CheckpointFolder& checkpoint) {
  const Json saved = files_->resume(checkpoint);
  state_ = LoopState::from_json(saved["loop"], (checkpoint.path / kStateFile).string());
  task_.train->load_state(saved["data"]);
  if (files_->is_own(checkpoint)) saved_step_ = state_.step;
  log::info(detail::concat("going on from ", checkpoint.path.string(), " (step ", state_.step, ")"));
}

void Trainer::save_final() {
  const bool best = config_.load_best_model_at_end && state_.best_step >= 0 && state_.best_step != state_.step;
  if (best) {
    const fs::path path = fs::path(config_.output_dir) / ("checkpoint-" + std::to_string(state_.best_step));
    if (const auto damage = checkpoint_damage(path))
      throw Error(Exit::file, {.what = "the best checkpoint is not whole: " + *damage, .where = path.string()});
    files_->load_weights(path);
    log::info(detail::concat("the final model is that of step ", state_.best_step, ", with the best evaluation: ",
                             best_metric_.name, " ", *state_.best_metric));
  }
  files_->save_final();
}

RunResult result_of(const LoopState& state, const fs::path& output_dir, RunResult::End end, int signal) {
  RunResult result{.end = end,
                   .step = state.step,
                   .tokens = state.tokens,
                   .target_tokens = state.target_tokens,
                   .seconds = state.seconds,
                   .last_loss = state.last_loss,
                   .eval_loss = state.last_eval_loss,
                   .best_eval_loss = state.best_eval_loss,
                   .best_metric = state.best_metric,
                   .best_step = state.best_step,
                   .nonfinite_steps = state.nonfinite_steps,
                   .signal = signal};
  const auto all = list_checkpoints(output_dir);
  if (!all.empty()) result.checkpoint = all.back().path.string();
  return result;
}

RunResult Trainer::result(RunResult::End end, int signal) const {
  RunResult result = result_of(state_, config_.output_dir, end, signal);
  result.eval_metrics = eval_metrics_;
  return result;
}

}  // namespace llmtk::train
