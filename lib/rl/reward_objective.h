#pragma once
// A reward model: one number for a text, learnt from pairs, as TRL's RewardTrainer teaches it.

#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "nn/model.h"
#include "rl/answers.h"
#include "rl/reward_config.h"
#include "train/metric_sums.h"

namespace llmtk::rl {

/// What a head with one label says of each text: [M] float32. Throws CheckFailed for a head with more.
at::Tensor text_rewards(nn::Model& model, const Answers& texts);

class RewardObjective {
 public:
  RewardObjective(std::shared_ptr<nn::Model> model, RewardConfig config)
      : model_(std::move(model)), config_(std::move(config)) {}

  /// scale * the sum of bradley_terry_loss() over the batch's pairs, with values as margins where there are any. Rows
  /// without a label are left out.
  /// Figures, of each pair: accuracy, margin; of each text: mean_reward.
  at::Tensor loss(const data::Batch& batch, double scale, train::MetricSums& sums) const;
  static std::vector<std::string> figures() { return {"accuracy", "margin", "mean_reward"}; }

 private:
  std::shared_ptr<nn::Model> model_;
  RewardConfig config_;
};

}  // namespace llmtk::rl
