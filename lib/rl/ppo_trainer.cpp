#include "rl/ppo_trainer.h"

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
#include "train/random_state.h"
#include "train/signals.h"

namespace llmtk::rl {
namespace {

using Json = nlohmann::ordered_json;
using RunEnd = train::RunResult::End;
using PpoClock = std::chrono::steady_clock;

double ppo_seconds_since(PpoClock::time_point start) {
  return std::chrono::duration<double>(PpoClock::now() - start).count();
}

generate::GenerationConfig sampling(const PpoConfig& config, const text::Tokenizer& tokenizer, uint64_t seed) {
  generate::GenerationConfig sampling;
  sampling.do_sample = true;
  sampling.temperature = config.temperature;
  sampling.top_k = 0;
  sampling.max_new_tokens = config.response_length;
  sampling.seed = seed;
  if (config.stop_token_id)
    sampling.eos_token_ids = {static_cast<text::TokenId>(*config.stop_token_id)};
  else if (config.stop_token == "eos")
    sampling.eos_token_ids = {tokenizer.special_tokens().eos};
  return sampling;
}

/// The unbiased variance, as torch.var; 0 of one number.
double variance(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  double mean = 0, squares = 0;
  for (const double value : values) mean += value / static_cast<double>(values.size());
  for (const double value : values) squares += (value - mean) * (value - mean);
  return squares / static_cast<double>(values.size() - 1);
}

std::string shortly(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

}  // namespace

int64_t ppo_batch_size(const train::TrainerConfig& trainer) {
  return trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps;
}

int64_t ppo_batches(const PpoConfig& config, const train::TrainerConfig& trainer, size_t prompts) {
  const int64_t passes = trainer.num_train_epochs * static_cast<int64_t>(prompts);
  const int64_t episodes = config.total_episodes > 0 ? config.total_episodes : passes;
  const int64_t batch = ppo_batch_size(trainer);
  return (episodes + batch - 1) / batch;
}

PpoTrainer::PpoTrainer(const PpoConfig& config, const train::TrainerConfig& trainer,
                       const train::OptimizerConfig& optimizer, const train::SchedulerConfig& scheduler,
                       train::Task task, PpoParts parts)
    : config_(config),
      trainer_(trainer),
      optimizer_config_(optimizer),
      task_(std::move(task)),
      parts_(std::move(parts)),
      batches_(ppo_batches(config, trainer, parts_.prompts->all.size())),
      schedule_(scheduler.make(batches_)),
      device_(parts_.model->policy().device()),
      kl_(config.kl_coef, config.adaptive_kl_target, config.kl_horizon) {
  LLMTK_CHECK(task_.module && task_.parallel && task_.save_model && parts_.reference && parts_.rewards);
  LLMTK_CHECK(task_.parallel->world_size() == 1, "PPO on several ranks");
  if (trainer_.deterministic) train::be_deterministic();
  optimizer_ = make_optimizer(optimizer, *task_.module,
                              task_.converts ? std::optional(parse_dtype(trainer_.dtype)) : std::nullopt,
                              task_.learning_rates);
  gradients_ = std::make_unique<train::Gradients>(
      optimizer_->parameters(), ppo_batch_size(trainer_) / config_.num_mini_batches > trainer_.per_device_train_batch_size);
  task_.save_state = [this, others = std::move(task_.save_state)](const fs::path& folder) {
    if (others) others(folder);
    if (rollout_) io::save_tensors(folder / kRolloutFile, rollout_->tensors());
  };
  files_ = std::make_unique<train::RunFiles>(trainer_, task_, *optimizer_, device_);
}

train::RunResult PpoTrainer::run(const train::Start& start) {
  const train::RunLock lock(trainer_.output_dir);
  files_->begin(start, [this](const train::CheckpointFolder& checkpoint) {
    resume(checkpoint);
    return state_.step;
  });
  const train::StopSignals signals;
  task_.module->eval();  // dropout would set the ratio of new to old probabilities off from 1
  const int64_t steps = batches_ * steps_per_batch();
  if (task_.observer) task_.observer->began(state_.step, steps);
  while (true) {
    const bool last = state_.step >= steps;
    if (state_.step > 0 && state_.step != saved_step_ && state_.nonfinite_in_row == 0 && (last || save_is_due())) save();
    if (last) {
      files_->save_final();
      if (task_.observer) task_.observer->finished();
      return result_of(state_, trainer_.output_dir, RunEnd::finished, 0);
    }
    if (signals.received() == 0 && !rollout_) collect();
    if (signals.received() != 0) {
      if (state_.step != saved_step_) save();
      return result_of(state_, trainer_.output_dir, RunEnd::interrupted, signals.received());
    }
    train_step();
  }
}

/// Passes that end early may leap over a multiple of save_steps.
bool PpoTrainer::save_is_due() const {
  const int64_t every = trainer_.save_steps;
  return every > 0 && state_.step / every > std::max<int64_t>(saved_step_, 0) / every;
}

std::vector<Response> PpoTrainer::write_responses() {
  const int64_t B = ppo_batch_size(trainer_), first = batch_number() * B;
  const auto seed = static_cast<uint64_t>(trainer_.seed);
  std::vector<Response> responses(static_cast<size_t>(B));
  std::vector<std::vector<text::TokenId>> prompts;
  for (int64_t i = 0; i < B; ++i) {
    responses[i].prompt = &parts_.prompts->of_episode(first + i, parts_.shuffle_prompts, seed);
    prompts.push_back(responses[i].prompt->ids);
  }
  generate::GenerateOptions options{.batch_size = config_.local_rollout_forward_batch_size,
                                    .first_prompt = static_cast<size_t>(first)};
  auto written = generate::generate(parts_.model->policy(), *parts_.tokenizer, prompts,
                                    sampling(config_, *parts_.tokenizer, seed), options);
  for (size_t i = 0; i < written.size(); ++i) {
    responses[i].ids = std::move(written[i].ids);
    responses[i].text = std::move(written[i].text);
    responses[i].ended = written[i].finish_reason == generate::FinishReason::eos;
  }
  return responses;
}

void PpoTrainer::collect() {
  const auto begin = PpoClock::now();
  const std::vector<Response> responses = write_responses();
  const std::vector<double> rated = parts_.rewards->rate(responses);
  const auto B = static_cast<int64_t>(responses.size());
  at::Tensor scores = at::empty({B}, at::kFloat);
  int64_t eos = 0, tokens = 0;
  for (int64_t i = 0; i < B; ++i) {
    const Response& response = responses[i];
    const double penalty = config_.missing_eos_penalty && !response.ended ? *config_.missing_eos_penalty : 0;
    scores.mutable_data_ptr<float>()[i] = static_cast<float>(rated[i] - penalty);
    eos += std::ranges::count(response.ids, parts_.tokenizer->special_tokens().eos);
    tokens += static_cast<int64_t>(response.prompt->ids.size() + response.ids.size());
  }
  rollout_ = make_rollout(config_, kl_.coefficient(), *parts_.model, parts_.reference, make_batch(responses, device_),
                          scores.to(device_));
  objective_ = objective_figures(config_, kl_.coefficient(), *rollout_);
  objective_["objective/kl_coef"] = kl_.coefficient();
  objective_["val/num_eos_tokens"] = eos;
  state_.tokens += tokens;
  state_.seconds += ppo_seconds_since(begin);
  batch_seconds_ += ppo_seconds_since(begin);
}

/// Each pass goes through the responses in another order, which the seed and the step determine.
at::Tensor PpoTrainer::rows_of_step() const {
  const int64_t inside = state_.step % steps_per_batch(), B = rollout_->size(), size = B / config_.num_mini_batches;
  const int64_t pass = batch_number() * config_.num_ppo_epochs + inside / config_.num_mini_batches;
  const data::Permutation order(static_cast<uint64_t>(B), data::mix(static_cast<uint64_t>(trainer_.seed) ^
                                                                    data::mix(~static_cast<uint64_t>(pass))));
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < size; ++i)
    rows.push_back(static_cast<int64_t>(order(static_cast<uint64_t>(inside % config_.num_mini_batches * size + i))));
  return at::tensor(rows, at::kLong).to(device_);
}

void PpoTrainer::train_step() {
  const auto begin = PpoClock::now();
  const at::Tensor rows = rows_of_step();
  const StepTokens tokens = count_tokens(*rollout_, rows);
  train::MetricSums sums;
  double ratio_error = 0;
  at::Tensor total;
  for (const at::Tensor& part : rows.split(trainer_.per_device_train_batch_size)) {
    at::Tensor loss = ppo_loss(config_, *parts_.model, *rollout_, part, tokens, sums, ratio_error);
    loss.backward();
    total = total.defined() ? total + loss.detach() : loss.detach();
  }
  const bool first = state_.step % steps_per_batch() == 0;
  if (first) note_ratio(ratio_error);
  const Json means = sums.means();
  const double factor = schedule_.factor(batch_number());
  train::Update done{.loss = total.item<double>(), .learning_rate = optimizer_config_.learning_rate * factor};
  const bool stops = too_far(means["policy/approxkl_avg"].get<double>());
  if (stops)
    gradients_->clear();
  else
    done = update(*optimizer_, *gradients_, optimizer_config_, factor, total, *task_.parallel);

  if (done.finite) {
    for (const auto& [name, mean] : means.items()) state_.window_metrics.add(name, mean.get<double>(), 1);
    ratios_.push_back(means["val/ratio"].get<double>());
    state_.window_loss += done.loss;
    ++state_.window_targets;
    state_.nonfinite_in_row = 0;
    state_.last_loss = done.loss;
  }
  state_.step = stops ? (batch_number() + 1) * steps_per_batch() : state_.step + 1;
  state_.target_tokens += static_cast<int64_t>(tokens.policy);
  state_.seconds += ppo_seconds_since(begin);
  batch_seconds_ += ppo_seconds_since(begin);
  if (task_.observer) task_.observer->stepped(step_report(done));
  if (!done.finite) note_skipped(done, trainer_, state_, task_.observer);
  if (state_.step % steps_per_batch() == 0) finish_batch(done);
}

bool PpoTrainer::too_far(double approx_kl) {
  if (!config_.target_kl || !(approx_kl > *config_.target_kl)) return false;
  log::info(detail::concat("step ", state_.step + 1, ": policy/approxkl ", shortly(approx_kl), " is above ppo.target_kl ",
                           *config_.target_kl, "; the other passes over these responses are left out"));
  return true;
}

/// Before the first step the policy is the one that wrote: each ratio is 1 but for rounding.
void PpoTrainer::note_ratio(double error) {
  const double bound = parts_.model->policy().dtype() == at::kBFloat16 ? 2e-2 : 1e-4;
  const std::string text = detail::concat("step ", state_.step + 1, ": the ratio of new to old probabilities is within ",
                                          shortly(error), " of 1 before the first step (bound ", bound, ")");
  if (error > bound)
    log::warn(text + ": what the policy wrote is not what it is taught on");
  else if (!ratio_told_)
    log::info(text);
  ratio_told_ = true;
}

train::StepReport PpoTrainer::step_report(const train::Update& update) const {
  return {.step = state_.step,
          .total_steps = batches_ * steps_per_batch(),
          .loss = update.loss,
          .learning_rate = update.learning_rate,
          .grad_norm = update.norm,
          .tokens_per_second = batch_seconds_ > 0 ? rollout_->batch.lengths.sum().item<double>() / batch_seconds_ : 0,
          .tokens = state_.tokens,
          .target_tokens = state_.target_tokens,
          .seconds = state_.seconds};
}

void PpoTrainer::finish_batch(const train::Update& last) {
  figures_ = objective_;
  const Json means = state_.window_metrics.means();
  for (const auto& [name, mean] : means.items()) figures_[name] = mean;
  figures_["val/ratio_var"] = variance(ratios_);
  figures_["lr"] = last.learning_rate;
  figures_["episode"] = batch_number() * rollout_->size();
  train::StepReport report = step_report(last);
  report.loss = state_.window_loss / static_cast<double>(state_.window_targets);
  report.metrics = figures_;
  if (task_.observer) task_.observer->logged(report);
  const auto figure = [&](const char* name) { return shortly(figures_.value(name, std::nan(""))); };
  log::info(detail::concat("episode ", figures_["episode"].get<int64_t>(), ": scores ", figure("objective/scores"),
                           ", kl ", figure("objective/kl"), ", clipped ", figure("policy/clipfrac_avg"), ", entropy ",
                           figure("policy/entropy_avg"), ", value loss ", figure("loss/value_avg")));
  show_samples();
  kl_.update(figures_["objective/kl"].get<double>(), rollout_->size());
  state_.window_metrics.clear();
  state_.window_loss = 0;
  state_.window_targets = 0;
  ratios_.clear();
  objective_ = {};
  rollout_.reset();
  batch_seconds_ = 0;
}

/// From what a checkpoint keeps, so that a resumed run shows what the whole one does.
void PpoTrainer::show_samples() const {
  if (!parts_.on_sample) return;
  const int64_t B = rollout_->size(), first = (batch_number() - 1) * B;
  const at::Tensor ids = rollout_->batch.responses(0).to(at::kInt).cpu(), lengths = rollout_->batch.lengths.cpu(),
                   scores = rollout_->scores.cpu();
  for (int64_t i = 0; i < std::min(B, config_.num_samples); ++i) {
    const auto seed = static_cast<uint64_t>(trainer_.seed);
    Response response{.prompt = &parts_.prompts->of_episode(first + i, parts_.shuffle_prompts, seed)};
    const int32_t* begin = ids.const_data_ptr<int32_t>() + i * ids.size(1);
    response.ids.assign(begin, begin + lengths.const_data_ptr<int64_t>()[i]);
    response.text = parts_.tokenizer->decode(response.ids, /*skip_special_tokens=*/true);
    parts_.on_sample(state_.step, response, scores.const_data_ptr<float>()[i]);
  }
}

void PpoTrainer::save() {
  Json loop = state_.to_json();
  loop["ppo"] = {{"batch_size", ppo_batch_size(trainer_)},
                 {"kl_coef", kl_.coefficient()}, {"ratios", ratios_}, {"objective", objective_}, {"figures", figures_}};
  uint64_t bytes = 0;
  if (rollout_)
    for (const auto& [name, tensor] : rollout_->tensors()) bytes += tensor.nbytes();
  files_->save(state_.step, loop, {{"prompts", parts_.prompts->identity}}, -1, bytes);
  saved_step_ = state_.step;
}

void PpoTrainer::resume(const train::CheckpointFolder& checkpoint) {
  const std::string where = (checkpoint.path / train::kStateFile).string();
  const Json saved = files_->resume(checkpoint);
  state_ = train::LoopState::from_json(saved["loop"], where);
  if (saved["data"].value("prompts", "") != parts_.prompts->identity)
    throw Error(Exit::data, {.what = "cannot go on from this checkpoint: the prompts are not those of the run", .where = where});
  try {
    const Json& ppo = saved["loop"].at("ppo");
    if (const auto before = ppo.at("batch_size").get<int64_t>(), now = ppo_batch_size(trainer_); before != now)
      throw Error(Exit::usage, {.what = "cannot go on from this checkpoint with another number of responses in a batch",
                                .where = where,
                                .got = std::to_string(now),
                                .expected = std::to_string(before),
                                .hint = "put the old trainer.gradient_accumulation_steps back"});
    kl_.set_coefficient(ppo.at("kl_coef").get<double>());
    ratios_ = ppo.at("ratios").get<std::vector<double>>();
    objective_ = ppo.at("objective");
    figures_ = ppo.at("figures");
  } catch (const Json::exception& error) {
    throw Error(Exit::file, {.what = "not the state of a PPO run", .where = where, .got = error.what()});
  }
  if (const auto file = checkpoint.path / kRolloutFile; fs::exists(file))
    rollout_ = Rollout::from_tensors(io::load_tensors(file), device_, file.string());
  LLMTK_CHECK(rollout_ || state_.step % steps_per_batch() == 0, "a step in the middle of no responses");
  if (files_->is_own(checkpoint)) saved_step_ = state_.step;
  log::info(detail::concat("going on from ", checkpoint.path.string(), " (step ", state_.step, ", episode ",
                           batch_number() * ppo_batch_size(trainer_), ")"));
}

}  // namespace llmtk::rl
