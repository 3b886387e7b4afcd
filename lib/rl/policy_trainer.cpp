#include "rl/policy_trainer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "core/device.h"
#include "core/error.h"
#include "core/log.h"
#include "data/permutation.h"
#include "generate/generate.h"
#include "io/json.h"
#include "rl/figures.h"
#include "train/random_state.h"
#include "train/signals.h"

namespace llmtk::rl {
namespace {

using Json = nlohmann::ordered_json;
using RunEnd = train::RunResult::End;
using PolicyClock = std::chrono::steady_clock;

double policy_seconds_since(PolicyClock::time_point start) {
  return std::chrono::duration<double>(PolicyClock::now() - start).count();
}

/// Out of what was begun when a signal came: nothing of it has changed the run.
struct Stopped {};
void stop_if(const train::StopSignals& signals) {
  if (signals.received() != 0) throw Stopped();
}

std::string shortly(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

}  // namespace

PolicyTrainer::PolicyTrainer(PolicyPlan plan, const train::TrainerConfig& trainer,
                             const train::OptimizerConfig& optimizer, const train::SchedulerConfig& scheduler,
                             train::Task task, PolicyParts parts)
    : plan_(std::move(plan)),
      trainer_(trainer),
      optimizer_config_(optimizer),
      task_(std::move(task)),
      parts_(std::move(parts)),
      schedule_(scheduler.make(plan_.schedule_by_batch ? plan_.batches : plan_.steps())),
      device_(parts_.method->policy().device()) {
  LLMTK_CHECK(task_.module && task_.parallel && task_.save_model && parts_.rewards);
  LLMTK_CHECK(task_.parallel->world_size() == 1, "a policy on several ranks");
  LLMTK_CHECK(plan_.responses % plan_.group_size == 0 && plan_.responses % plan_.steps_per_pass == 0);
  if (trainer_.deterministic) train::be_deterministic();
  optimizer_ = make_optimizer(optimizer, *task_.module,
                              task_.converts ? std::optional(parse_dtype(trainer_.dtype)) : std::nullopt,
                              task_.learning_rates);
  gradients_ = std::make_unique<train::Gradients>(optimizer_->parameters(),
                                                  plan_.responses_per_step() > trainer_.per_device_train_batch_size);
  task_.save_state = [this, others = std::move(task_.save_state)](const fs::path& folder) {
    if (others) others(folder);
    if (rollout_) io::save_tensors(folder / kRolloutFile, rollout_->tensors());
  };
  files_ = std::make_unique<train::RunFiles>(trainer_, task_, *optimizer_, device_);
}

train::RunResult PolicyTrainer::run(const train::Start& start) {
  const train::RunLock lock(trainer_.output_dir);
  files_->begin(start, [this](const train::CheckpointFolder& checkpoint) {
    resume(checkpoint);
    return state_.step;
  });
  const train::StopSignals signals;
  task_.module->eval();  // dropout would set the ratio of new to old probabilities off from 1
  const int64_t steps = plan_.steps();
  if (task_.observer) task_.observer->began(state_.step, steps);
  while (true) {
    const bool last = state_.step >= steps;
    if (state_.step > 0 && state_.step != saved_step_ && state_.nonfinite_in_row == 0 && (last || save_is_due())) save();
    if (last) {
      files_->save_final();
      if (task_.observer) task_.observer->finished();
      return result_of(state_, trainer_.output_dir, RunEnd::finished, 0);
    }
    try {
      if (!rollout_) collect(signals);
      train_step(signals);
    } catch (const Stopped&) {
      gradients_->clear();
      if (state_.step != saved_step_) save();
      return result_of(state_, trainer_.output_dir, RunEnd::interrupted, signals.received());
    }
  }
}

/// Passes that end early may leap over a multiple of save_steps.
bool PolicyTrainer::save_is_due() const {
  const int64_t every = trainer_.save_steps;
  return every > 0 && state_.step / every > std::max<int64_t>(saved_step_, 0) / every;
}

/// The prompt of a response, counted over the whole run.
const Prompt& PolicyTrainer::prompt_of(int64_t episode) const {
  return parts_.prompts->of_episode(episode / plan_.group_size, parts_.shuffle_prompts,
                                    static_cast<uint64_t>(trainer_.seed));
}

std::vector<Response> PolicyTrainer::write_responses(const train::StopSignals& signals) {
  const int64_t B = plan_.responses, G = plan_.group_size, first = batch_number() * B;
  std::vector<Response> responses(static_cast<size_t>(B));
  std::vector<std::vector<text::TokenId>> prompts;
  for (int64_t i = 0; i < B; ++i) {
    responses[i].prompt = &prompt_of(first + i);
    if (i % G == 0) prompts.push_back(responses[i].prompt->ids);
  }
  generate::GenerationConfig sampling = plan_.sampling;
  sampling.num_return_sequences = G;  // a prompt is read once for all of its responses
  const generate::GenerateOptions options{.batch_size = plan_.at_once,
                                          .first_prompt = static_cast<size_t>(first / G),
                                          .on_text = [&](size_t, std::string_view) { stop_if(signals); }};
  auto written = generate::generate(parts_.method->policy(), *parts_.tokenizer, prompts, sampling, options);
  for (size_t i = 0; i < written.size(); ++i) {
    responses[i].ids = std::move(written[i].ids);
    responses[i].text = std::move(written[i].text);
    responses[i].ended = written[i].finish_reason == generate::FinishReason::eos;
  }
  return responses;
}

void PolicyTrainer::collect(const train::StopSignals& signals) {
  const auto begin = PolicyClock::now();
  const std::vector<Response> responses = write_responses(signals);
  stop_if(signals);
  const Ratings ratings = parts_.rewards->rate(responses);
  const auto B = static_cast<int64_t>(responses.size());
  at::Tensor scores = at::empty({B}, at::kFloat), ended = at::empty({B}, at::kBool);
  int64_t eos = 0, tokens = 0;
  for (int64_t i = 0; i < B; ++i) {
    const Response& response = responses[i];
    const double penalty = response.ended ? 0 : plan_.missing_eos_penalty.value_or(0);
    scores.mutable_data_ptr<float>()[i] = static_cast<float>(ratings.totals[i] - penalty);
    ended.mutable_data_ptr<bool>()[i] = response.ended;
    eos += std::ranges::count(response.ids, parts_.tokenizer->special_tokens().eos);
    tokens += static_cast<int64_t>(response.prompt->ids.size() + response.ids.size());
  }
  rollout_ = {.batch = make_batch(responses, device_), .scores = scores.to(device_), .ended = ended.to(device_)};
  std::vector<at::Tensor> first_pass;
  for (int64_t step = 0; step < plan_.steps_per_pass; ++step)
    for (const at::Tensor& rows : micro_batches(state_.step + step)) first_pass.push_back(rows);
  parts_.method->collect(*rollout_, first_pass);
  objective_ = parts_.method->objective(*rollout_);
  for (const auto& part : ratings.parts) {
    objective_["rewards/" + part.name + "/mean"] = mean_of(part.values);
    objective_["rewards/" + part.name + "/std"] = std::sqrt(variance_of(part.values));
  }
  objective_["val/num_eos_tokens"] = eos;
  state_.tokens += tokens;
  state_.seconds += policy_seconds_since(begin);
  batch_seconds_ += policy_seconds_since(begin);
}

/// The rows of a step of this batch, as many at a time as are read together. Each pass goes through the responses in
/// another order, which the seed and the step determine.
std::vector<at::Tensor> PolicyTrainer::micro_batches(int64_t step) const {
  const int64_t inside = step % plan_.steps_per_batch(), B = rollout_->size(), size = plan_.responses_per_step();
  const int64_t pass = batch_number() * plan_.passes + inside / plan_.steps_per_pass;
  const data::Permutation order(static_cast<uint64_t>(B), data::mix(static_cast<uint64_t>(trainer_.seed) ^
                                                                    data::mix(~static_cast<uint64_t>(pass))));
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < size; ++i)
    rows.push_back(static_cast<int64_t>(order(static_cast<uint64_t>(inside % plan_.steps_per_pass * size + i))));
  return at::tensor(rows, at::kLong).to(device_).split(trainer_.per_device_train_batch_size);
}

void PolicyTrainer::train_step(const train::StopSignals& signals) {
  const auto begin = PolicyClock::now();
  const std::vector<at::Tensor> parts = micro_batches(state_.step);
  const StepSize size = size_of(*rollout_, at::cat(parts));
  train::MetricSums sums;
  double ratio_error = 0;
  at::Tensor total;
  for (const at::Tensor& part : parts) {
    stop_if(signals);
    at::Tensor loss = parts_.method->loss(*rollout_, part, size, sums, ratio_error);
    loss.backward();
    total = total.defined() ? total + loss.detach() : loss.detach();
  }
  if (state_.step % plan_.steps_per_batch() == 0 && rollout_->log_probs.defined()) note_ratio(ratio_error);
  const Json means = sums.means();
  const double factor = schedule_.factor(plan_.schedule_by_batch ? batch_number() : state_.step);
  train::Update done{.loss = total.item<double>(), .learning_rate = optimizer_config_.learning_rate * factor};
  const bool stops = plan_.target_kl && too_far(means.at("policy/approxkl_avg").get<double>());
  if (stops)
    gradients_->clear();
  else
    done = update(*optimizer_, *gradients_, optimizer_config_, factor, total, *task_.parallel);

  if (done.finite && !stops) {
    for (const auto& [name, mean] : means.items()) state_.window_metrics.add(name, mean.get<double>(), 1);
    parts_.method->stepped(means);
    state_.window_loss += done.loss;
    ++state_.window_targets;
    state_.nonfinite_in_row = 0;
    state_.last_loss = done.loss;
  }
  state_.step = stops ? std::min((batch_number() + 1) * plan_.steps_per_batch(), plan_.steps()) : state_.step + 1;
  state_.target_tokens += static_cast<int64_t>(size.tokens);
  state_.seconds += policy_seconds_since(begin);
  batch_seconds_ += policy_seconds_since(begin);
  if (task_.observer) task_.observer->stepped(step_report(done));
  if (!done.finite) note_skipped(done, trainer_, state_, task_.observer);
  if (ends_batch(state_.step)) finish_batch(done);
}

bool PolicyTrainer::too_far(double approx_kl) {
  if (!(approx_kl > *plan_.target_kl)) return false;
  log::info(detail::concat("step ", state_.step + 1, ": policy/approxkl ", shortly(approx_kl), " is above target_kl ",
                           *plan_.target_kl, "; the other passes over these responses are left out"));
  return true;
}

/// Before the first step the policy is the one that wrote: each ratio is 1 but for rounding.
void PolicyTrainer::note_ratio(double error) {
  const double bound = parts_.method->policy().dtype() == at::kBFloat16 ? 2e-2 : 1e-4;
  const std::string text = detail::concat("step ", state_.step + 1, ": the ratio of new to old probabilities is within ",
                                          shortly(error), " of 1 before the first step (bound ", bound, ")");
  if (error > bound)
    log::warn(text + ": what the policy wrote is not what it is taught on");
  else if (!ratio_told_)
    log::info(text);
  ratio_told_ = true;
}

train::StepReport PolicyTrainer::step_report(const train::Update& update) const {
  return {.step = state_.step,
          .total_steps = plan_.steps(),
          .loss = update.loss,
          .learning_rate = update.learning_rate,
          .grad_norm = update.norm,
          .tokens_per_second = batch_seconds_ > 0 ? rollout_->batch.lengths.sum().item<double>() / batch_seconds_ : 0,
          .tokens = state_.tokens,
          .target_tokens = state_.target_tokens,
          .seconds = state_.seconds};
}

void PolicyTrainer::finish_batch(const train::Update& last) {
  figures_ = objective_;
  const Json means = state_.window_metrics.means();
  for (const auto& [name, mean] : means.items()) figures_[name] = mean;
  parts_.method->finish(figures_, rollout_->size(), last.learning_rate);
  figures_["episode"] = first_episode() + rollout_->size();
  train::StepReport report = step_report(last);
  report.loss = state_.window_loss / static_cast<double>(state_.window_targets);
  report.metrics = figures_;
  if (task_.observer) task_.observer->logged(report);
  std::string line = detail::concat("episode ", figures_["episode"].get<int64_t>());
  const char* before = ": ";
  for (const auto& [label, name] : parts_.method->headline()) {
    line += detail::concat(before, label, " ", shortly(figures_.value(name, std::nan(""))));
    before = ", ";
  }
  log::info(line);
  show_samples();
  state_.window_metrics.clear();
  state_.window_loss = 0;
  state_.window_targets = 0;
  objective_ = {};
  rollout_.reset();
  batch_seconds_ = 0;
}

/// Of the batch that is there, after its last step too.
int64_t PolicyTrainer::first_episode() const {
  const int64_t batch = ends_batch(state_.step) ? (state_.step - 1) / plan_.steps_per_batch() : batch_number();
  return batch * plan_.responses;
}

/// From what a checkpoint keeps, so that a resumed run shows what the whole one does.
void PolicyTrainer::show_samples() const {
  if (!parts_.on_sample) return;
  const int64_t B = rollout_->size(), first = first_episode();
  const at::Tensor ids = rollout_->batch.responses(0).to(at::kInt).cpu(), lengths = rollout_->batch.lengths.cpu(),
                   scores = rollout_->scores.cpu();
  for (int64_t i = 0; i < std::min(B, plan_.num_samples); ++i) {
    Response response{.prompt = &prompt_of(first + i)};
    const int32_t* begin = ids.const_data_ptr<int32_t>() + i * ids.size(1);
    response.ids.assign(begin, begin + lengths.const_data_ptr<int64_t>()[i]);
    text::StreamDecoder decoder(*parts_.tokenizer);
    for (const text::TokenId id : response.ids) response.text += decoder.push(id);
    response.text += decoder.finish();
    parts_.on_sample(state_.step, i, response, scores.const_data_ptr<float>()[i]);
  }
}

void PolicyTrainer::save() {
  Json loop = state_.to_json();
  loop["policy"] = {{"batch_size", plan_.responses},
                    {"method", parts_.method->state()},
                    {"objective", objective_},
                    {"figures", figures_}};
  uint64_t bytes = 0;
  if (rollout_)
    for (const auto& [name, tensor] : rollout_->tensors()) bytes += tensor.nbytes();
  files_->save(state_.step, loop, {{"prompts", parts_.prompts->identity}}, -1, bytes);
  saved_step_ = state_.step;
}

void PolicyTrainer::resume(const train::CheckpointFolder& checkpoint) {
  const std::string where = (checkpoint.path / train::kStateFile).string();
  const Json saved = files_->resume(checkpoint);
  state_ = train::LoopState::from_json(saved["loop"], where);
  if (saved["data"].value("prompts", "") != parts_.prompts->identity)
    throw Error(Exit::data, {.what = "cannot go on from this checkpoint: the prompts are not those of the run", .where = where});
  try {
    const Json& policy = saved["loop"].at("policy");
    if (const auto before = policy.at("batch_size").get<int64_t>(); before != plan_.responses)
      throw Error(Exit::usage, {.what = "cannot go on from this checkpoint with another number of responses in a batch",
                                .where = where,
                                .got = std::to_string(plan_.responses),
                                .expected = std::to_string(before),
                                .hint = "put the old trainer.gradient_accumulation_steps back"});
    parts_.method->restore(policy.at("method"));
    objective_ = policy.at("objective");
    figures_ = policy.at("figures");
  } catch (const Json::exception& error) {
    throw Error(Exit::file, {.what = "not the state of a run that teaches a policy", .where = where, .got = error.what()});
  }
  if (const auto file = checkpoint.path / kRolloutFile; fs::exists(file))
    rollout_ = Rollout::from_tensors(io::load_tensors(file), device_, file.string());
  LLMTK_CHECK(rollout_ || ends_batch(state_.step), "a step in the middle of no responses");
  if (files_->is_own(checkpoint)) saved_step_ = state_.step;
  log::info(detail::concat("going on from ", checkpoint.path.string(), " (step ", state_.step, ", episode ",
                           batch_number() * plan_.responses, ")"));
}

}  // namespace llmtk::rl
