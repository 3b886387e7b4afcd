#pragma once
// What a preference teaches: losses of pairs and of rated answers, one number each, [B] float32, differentiable in the
// policy's own figures. Log-probabilities are of whole answers: sums over their tokens, unless a mean is said.

#include <ATen/core/Tensor.h>

#include <string>

namespace llmtk::rl {

/// DPOConfig's loss_type.
enum class DpoLoss {
  sigmoid,  ///< Rafailov et al., Direct Preference Optimization (2023), equation 7
  hinge,    ///< Zhao et al., SLiC-HF (2023), with the reference of DPO
  ipo,      ///< Azar et al., A General Theoretical Paradigm (2023), equation 17, of means over tokens as its authors do
  robust,   ///< Chowdhury et al., Provably Robust DPO (2024): unbiased under labels that are flipped
};

struct DpoOptions {
  DpoLoss loss = DpoLoss::sigmoid;
  double beta = 0.1;  ///< of ipo, the paper's tau
  /// The share of pairs whose labels are taken to be flipped: of sigmoid, conservative DPO (Mitchell, A note on DPO
  /// with noisy preferences, 2023, equation 3), which trl 1.9 has no more; of robust, below 0.5. Not of the others.
  double label_smoothing = 0;
};

/// chosen, rejected: [B], log policy(answer) - log reference(answer). Their lengths in tokens, [B], are ipo's.
at::Tensor dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected, const DpoOptions& options,
                    const at::Tensor& chosen_lengths = {}, const at::Tensor& rejected_lengths = {});

struct KtoOptions {
  double beta = 0.1, desirable_weight = 1, undesirable_weight = 1;
};
/// Kahneman-Tversky optimization (Ethayarajh et al., KTO, 2024, equation 8), as TRL's KTOTrainer. log_ratios: [B], as
/// above; desirable: [B] bool; kl: a scalar, kto_kl() of the batch.
at::Tensor kto_loss(const at::Tensor& log_ratios, const at::Tensor& desirable, const at::Tensor& kl,
                    const KtoOptions& options);
/// The KL of the batch, estimated on answers to other prompts: max(0, mean of their log ratios), not differentiable.
at::Tensor kto_kl(const at::Tensor& mismatched_log_ratios);

/// log (odds(chosen) / odds(rejected)), odds(y) = P(y) / (1 - P(y)) with P(y) = exp(the mean log-probability of its
/// tokens): [B] (Hong et al., ORPO, 2024, equations 4 and 7; TRL's odds_ratio_loss). ORPO's loss is the negative
/// log-likelihood of the chosen text less beta * log sigmoid of it. A mean above -1e-7 counts as that: such odds have
/// no number.
at::Tensor log_odds_ratio(const at::Tensor& chosen_means, const at::Tensor& rejected_means);

/// A reward model's loss on pairs (Bradley and Terry, 1952; Ouyang et al., InstructGPT, 2022, equation 1):
/// -log sigmoid(chosen - rejected - margin) + center_coefficient * (chosen + rejected)^2. margin: [B] (Touvron et al.,
/// Llama 2, 2023, equation 2), or undefined; the centring is that of Eisenstein et al., Helping or Herding (2023).
at::Tensor bradley_terry_loss(const at::Tensor& chosen, const at::Tensor& rejected, const at::Tensor& margin = {},
                              double center_coefficient = 0);

}  // namespace llmtk::rl
