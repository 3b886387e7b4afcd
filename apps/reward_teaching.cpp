#include "reward_teaching.h"

#include <optional>

#include "core/error.h"
#include "io/json.h"
#include "rl/reward_objective.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What the last evaluation said.
struct HeldOut {
  Json figures;  // null: there was none
  int64_t pairs = 0;
};

class RewardEvaluator final : public train::Evaluator {
 public:
  RewardEvaluator(const rl::RewardObjective* objective, HeldOut& held_out)
      : objective_(objective), held_out_(held_out) {}
  void begin() override {
    sums_.clear();
    pairs_ = 0;
  }
  at::Tensor loss(const data::Batch& batch) override {
    pairs_ += batch.targets;
    return objective_->loss(batch, 1.0, sums_);
  }
  Json metrics() override {
    Json json, means = sums_.means();
    for (const std::string& name : rl::RewardObjective::figures()) json[name] = means.value(name, Json());
    if (pairs_ > 0) held_out_ = {means, pairs_};
    return json;
  }
  bool has_perplexity() const override { return false; }

 private:
  const rl::RewardObjective* objective_;  // null before there is a model
  HeldOut& held_out_;
  train::MetricSums sums_;
  int64_t pairs_ = 0;
};

class RewardTeaching final : public Teaching {
 public:
  explicit RewardTeaching(rl::RewardConfig config) : config_(std::move(config)) {}

  data::Objective objective() const override { return data::Objective::preference; }
  nn::Head head() const override { return nn::Head::sequence_classification; }
  void ask_for(data::FinetuneContext& context) const override { context.margins = true; }
  void begin(std::shared_ptr<nn::Model> model, data::FinetuningData&, const fs::path&) override {
    objective_.emplace(std::move(model), config_);
  }
  train::LossFunction loss() override {
    return [this](const data::Batch& batch, double scale) { return objective_->loss(batch, scale, metrics_); };
  }
  std::unique_ptr<train::Evaluator> evaluator() override {
    return std::make_unique<RewardEvaluator>(objective_ ? &*objective_ : nullptr, held_out_);
  }
  train::MetricSums* metrics() override { return &metrics_; }
  bool dropout() const override { return !config_.disable_dropout; }
  void save(const fs::path& folder) const override {
    if (held_out_.figures.is_null()) return;
    Json json = {{"format", "llmtk-reward-evaluation"}, {"version", 1}, {"pairs", held_out_.pairs}};
    json.update(held_out_.figures);
    io::write_json(folder / kRewardEvaluationFile, json);
  }
  void load(const fs::path& folder) override {
    held_out_ = {};
    if (!fs::exists(folder / kRewardEvaluationFile)) return;
    Json json = io::read_json(folder / kRewardEvaluationFile);
    held_out_.pairs = json.value("pairs", int64_t{0});
    for (const char* key : {"format", "version", "pairs"}) json.erase(key);
    held_out_.figures = std::move(json);
  }

 private:
  rl::RewardConfig config_;
  std::optional<rl::RewardObjective> objective_;
  HeldOut held_out_;
  train::MetricSums metrics_;
};

}  // namespace

std::unique_ptr<Teaching> teach_rewards(const rl::RewardConfig& config) {
  return std::make_unique<RewardTeaching>(config);
}

}  // namespace llmtk
