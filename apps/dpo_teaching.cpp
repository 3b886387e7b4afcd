#include "dpo_teaching.h"

#include <algorithm>
#include <optional>

#include "io/tensors.h"
#include "models/registry.h"
#include "rl/preference_objective.h"

namespace llmtk {
namespace {

namespace fs = std::filesystem;

constexpr const char* kReferenceFile = "reference_logps.safetensors";

class PreferenceEvaluator final : public train::Evaluator {
 public:
  PreferenceEvaluator(const rl::PreferenceObjective* objective, std::vector<std::string> figures)
      : objective_(objective), figures_(std::move(figures)) {}
  void begin() override { sums_.clear(); }
  at::Tensor loss(const data::Batch& batch) override { return objective_->loss(batch, 1.0, sums_); }
  nlohmann::ordered_json metrics() override {
    nlohmann::ordered_json json, means = sums_.means();
    for (const std::string& name : figures_) json[name] = means.value(name, nlohmann::ordered_json());
    return json;
  }
  bool has_perplexity() const override { return false; }

 private:
  const rl::PreferenceObjective* objective_;  // null before there is a model
  std::vector<std::string> figures_;
  train::MetricSums sums_;
};

class DpoTeaching final : public Teaching {
 public:
  DpoTeaching(rl::DpoConfig config, int64_t reference_batch_size)
      : config_(std::move(config)), reference_batch_size_(reference_batch_size) {}

  data::Objective objective() const override { return config_.objective(); }
  nn::Head head() const override { return nn::Head::causal_lm; }
  void ask_for(data::FinetuneContext& context) const override { context.annotated = config_.has_reference(); }
  void begin(std::shared_ptr<nn::Model> model, data::FinetuningData& data, const fs::path& checkpoint) override {
    objective_.emplace(models::as<nn::CausalModel>(std::move(model), "model"), config_);
    if (!config_.has_reference()) return;
    io::NamedTensors saved;
    if (!checkpoint.empty() && fs::exists(checkpoint / kReferenceFile))
      saved = io::load_tensors(checkpoint / kReferenceFile);
    for (const auto& rows : data.annotated) {
      const std::string identity = rows->identity();
      const auto found = std::ranges::find(saved, identity, &io::NamedTensors::value_type::first);
      const bool known = found != saved.end() && found->second.numel() == 2 * static_cast<int64_t>(rows->rows());
      at::Tensor values = known ? found->second.clone() : read(rows);
      rows->set({values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel()});
      if (std::ranges::find(reference_, identity, &io::NamedTensors::value_type::first) == reference_.end())
        reference_.emplace_back(identity, values);
    }
  }
  train::LossFunction loss() override {
    return [this](const data::Batch& batch, double scale) { return objective_->loss(batch, scale, metrics_); };
  }
  std::unique_ptr<train::Evaluator> evaluator() override {
    return std::make_unique<PreferenceEvaluator>(objective_ ? &*objective_ : nullptr, rl::figures_of(config_));
  }
  train::MetricSums* metrics() override { return &metrics_; }
  bool dropout() const override { return !config_.disable_dropout; }
  void save_state(const fs::path& folder) const override {
    if (!reference_.empty()) io::save_tensors(folder / kReferenceFile, reference_);
  }

 private:
  /// The model is still what it began as, so it is its own reference.
  at::Tensor read(const std::shared_ptr<data::AnnotatedRows>& rows) const {
    const auto values = objective_->reference(rows, reference_batch_size_);
    return at::tensor(values, at::kFloat);
  }

  rl::DpoConfig config_;
  int64_t reference_batch_size_;
  std::optional<rl::PreferenceObjective> objective_;
  train::MetricSums metrics_;
  io::NamedTensors reference_;  // by the rows' identity
};

}  // namespace

std::unique_ptr<Teaching> teach_preferences(const rl::DpoConfig& config, int64_t eval_batch_size) {
  const int64_t batch = config.precompute_ref_batch_size;
  return std::make_unique<DpoTeaching>(config, batch > 0 ? batch : eval_batch_size);
}

}  // namespace llmtk
