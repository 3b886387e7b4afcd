#pragma once
// What PPO teaches: a policy, and beside it or on its trunk what values its texts.
//
// B responses; T tokens of the longest prompt and response together; R tokens of the longest response; H the hidden size.

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <memory>

#include "nn/causal_model.h"
#include "nn/sequence_classifier.h"

namespace llmtk::rl {

/// Texts of a prompt and a response each, padded behind, where a decoder does not look.
struct ResponseBatch {
  at::Tensor ids;             ///< [B, T] int64
  at::Tensor prompt_lengths;  ///< [B] int64, 1 or more
  at::Tensor lengths;         ///< [B] int64, tokens of each response, 1 or more
  int64_t longest = 0;        ///< R, of which some may be padding in all of these rows

  /// [B, R] bool: tokens of responses.
  at::Tensor mask() const { return up_to(0); }
  /// [B, R] bool: the same and one place more where there is one, as TRL's padding_mask_p1: the value behind a response.
  at::Tensor value_mask() const { return up_to(1); }
  /// [B, R] int64: the tokens themselves; `fill` at padding.
  at::Tensor responses(int64_t fill) const;
  /// Some of the rows, T no longer than they need.
  ResponseBatch rows(const at::Tensor& index) const;
  /// hidden: [B, T, H] -> [B, R, H]: what stands before each token of a response, from which it is told; behind the last
  /// the response's last token.
  at::Tensor before_responses(const at::Tensor& hidden) const;

 private:
  at::Tensor up_to(int64_t more) const;
};

/// All [B, R] float32, 0 where they are of no token.
struct Readings {
  at::Tensor log_probs;
  at::Tensor entropies;  ///< undefined where not asked for
  at::Tensor values;     ///< at value_mask()
};

/// What a policy says of the responses' tokens at a temperature; values stay undefined. Differentiable.
Readings read_policy(nn::CausalModel& model, const ResponseBatch& batch, double temperature, bool entropy);
/// Its log-probabilities alone: [B, R].
at::Tensor response_log_probs(nn::CausalModel& model, const ResponseBatch& batch, double temperature);

class PolicyAndValue : public torch::nn::Module {
 public:
  /// value_model: of one label; null: `value_head`, [1, H] without a bias, on the policy's last hidden states. It begins
  /// as 0: no value is worth more than another.
  PolicyAndValue(std::shared_ptr<nn::CausalModel> policy, std::shared_ptr<nn::DecoderClassifier> value_model);

  /// Differentiable in the policy and in what gives values.
  Readings read(const ResponseBatch& batch, double temperature, bool entropy);
  nn::CausalModel& policy() { return *policy_; }
  /// The head, or the model.
  const torch::nn::Module& value() const;

 private:
  std::shared_ptr<nn::CausalModel> policy_;
  std::shared_ptr<nn::DecoderClassifier> value_model_;
  std::shared_ptr<nn::Linear> value_head_;
};

}  // namespace llmtk::rl
