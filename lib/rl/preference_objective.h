#pragma once
// What a decoder learns of preferences: the loss of a batch and the figures that go with it, as TRL's DPOTrainer,
// KTOTrainer and ORPOTrainer have them.

#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/rows.h"
#include "nn/causal_model.h"
#include "rl/dpo_config.h"
#include "train/metric_sums.h"

namespace llmtk::rl {

/// What PreferenceObjective::loss() adds up.
std::vector<std::string> figures_of(const DpoConfig& config);

class PreferenceObjective {
 public:
  PreferenceObjective(std::shared_ptr<nn::CausalModel> model, DpoConfig config)
      : model_(std::move(model)), config_(std::move(config)) {}

  /// What the model, as it is now and without dropout, says of each row: log p of its first answer and of its second,
  /// [rows, 2], row-major. This is the reference that loss() finds in Batch::values.
  std::vector<float> reference(std::shared_ptr<data::RowSource> rows, int64_t batch_size) const;

  /// scale * the sum over the batch's rows, a scalar; what the rows' means are of is added to `sums`.
  ///  - sigmoid, hinge, ipo, robust: dpo_loss(). Rows hold the chosen and the rejected answer, values {reference of the
  ///    chosen one, of the rejected one}.
  ///  - orpo: -log p of the chosen text, prompt and all, meant over the tokens of the batch, less
  ///    beta * log sigmoid of log_odds_ratio(). No values.
  ///  - kto: kto_loss(). Rows hold the answer and one to another prompt, on which the KL is estimated without a
  ///    gradient; values {1 where it is wanted, reference of the first, of the second}.
  /// Rows without a label are left out.
  /// Figures, of each row: rewards/chosen, rewards/rejected (beta * what the policy gained on the reference; of orpo
  /// beta * the mean log p), rewards/accuracies (of pairs), rewards/margins, logps/chosen, logps/rejected; of each
  /// answer's token: entropy; kto: kl of each batch; orpo: nll_loss, log_odds_ratio, log_odds_chosen.
  at::Tensor loss(const data::Batch& batch, double scale, train::MetricSums& sums) const;

 private:
  at::Tensor dpo(const data::Batch& batch, train::MetricSums& sums) const;
  at::Tensor orpo(const data::Batch& batch, train::MetricSums& sums) const;
  at::Tensor kto(const data::Batch& batch, train::MetricSums& sums) const;

  std::shared_ptr<nn::CausalModel> model_;
  DpoConfig config_;
};

}  // namespace llmtk::rl
