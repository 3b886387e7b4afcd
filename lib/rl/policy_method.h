#pragma once
// What a way of learning from one's own responses (PPO, GRPO) is to the loop of policy_trainer.h.

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "generate/config.h"
#include "nn/causal_model.h"
#include "rl/response_config.h"
#include "rl/rollout.h"
#include "text/tokenizer.h"
#include "train/metric_sums.h"

namespace llmtk::rl {

/// A run, as the loop sees it: batches of responses, and optimizer steps on each.
struct PolicyPlan {
  int64_t responses = 0;       ///< of a batch
  int64_t group_size = 1;      ///< of them to each prompt, side by side
  int64_t batches = 0;         ///< of the run
  int64_t max_steps = 0;       ///< of the run, where that is less than its batches have; 0: no such bound
  int64_t passes = 1;          ///< over a batch, each in another order
  int64_t steps_per_pass = 1;  ///< each on as many of the batch's responses
  int64_t at_once = 64;        ///< responses that are written together
  bool schedule_by_batch = false;  ///< the learning rate follows the batches; else the steps
  generate::GenerationConfig sampling;
  std::optional<double> missing_eos_penalty;  ///< taken off the score of a response that no stop token ended
  /// The passes over a batch end where a step's policy/approxkl_avg is above this; that step is not taken.
  std::optional<double> target_kl;
  int64_t num_samples = 0;  ///< responses of each batch that are shown

  int64_t steps_per_batch() const { return passes * steps_per_pass; }
  int64_t steps() const {
    const int64_t all = batches * steps_per_batch();
    return max_steps > 0 ? std::min(all, max_steps) : all;
  }
  int64_t responses_per_step() const { return responses / steps_per_pass; }
};

/// What ends responses, for the sampler.
void set_stop_tokens(generate::GenerationConfig& sampling, const ResponseEndConfig& config,
                     const text::Tokenizer& tokenizer);

class PolicyMethod {
 public:
  using Json = nlohmann::ordered_json;

  virtual ~PolicyMethod() = default;
  virtual nn::CausalModel& policy() = 0;
  /// Fills in what is learnt from the responses: rollout.batch, scores and ended are there. They are read in `parts`,
  /// those that the first pass will read, and as when learning, in grad mode: what is computed of the same rows in the
  /// same shapes on the same ways is the same to the bit, so that no ratio begins beside 1.
  virtual void collect(Rollout& rollout, const std::vector<at::Tensor>& parts) = 0;
  /// Figures of the responses, before anything was learnt from them.
  virtual Json objective(const Rollout& rollout) const = 0;
  /// The part that `rows` (int64, some of the step's) have in the loss of their step: a scalar, differentiable; the
  /// parts of a step's micro-batches add up. Figures are added to `sums` with the tokens that they are means over.
  /// ratio_error: at least the largest distance of a token's ratio of new to old probabilities from 1.
  virtual at::Tensor loss(const Rollout& rollout, const at::Tensor& rows, const StepSize& step, train::MetricSums& sums,
                          double& ratio_error) = 0;
  /// After a step that was taken, with the means of its figures.
  virtual void stepped(const Json& /*means*/) {}
  /// At the end of a batch: `figures` holds objective() and the means over its steps, and gets what else is reported.
  virtual void finish(Json& /*figures*/, int64_t /*responses*/, double /*learning_rate*/) {}
  /// {what a line about a batch calls it, the figure}.
  virtual std::vector<std::pair<const char*, const char*>> headline() const = 0;
  /// What a checkpoint keeps of the method itself.
  virtual Json state() const { return Json::object(); }
  virtual void restore(const Json& /*state*/) {}
};

}  // namespace llmtk::rl
