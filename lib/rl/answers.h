#pragma once
// Answers side by side (data::LabelKind::answers) as a decoder reads them, and how probable they are.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "data/batch.h"
#include "nn/causal_model.h"

namespace llmtk::rl {

/// The texts of a batch's rows, each by itself: those that come first in their rows, then the second ones, M together
/// (TRL's [chosen, rejected]); T, the longest. Padding stands behind, where a decoder does not look.
struct Answers {
  at::Tensor input_ids;  ///< [M, T] int64
  at::Tensor targets;    ///< [M, T] int64, the next token where it is of an answer, else data::kIgnore
  at::Tensor lengths;    ///< [M] int64, tokens of each text
  int64_t rows = 0;      ///< B; M is B or 2 B, each row alike

  at::Tensor asked() const;           ///< [M, T] bool
  at::Tensor answer_lengths() const;  ///< [M] float32, tokens of each answer
  /// The next token wherever there is one, of prompts too.
  at::Tensor all_targets() const;
  /// Texts [first, first + count) of the M.
  Answers part(int64_t first, int64_t count) const;
};

/// Throws CheckFailed for rows that do not hold as many texts each.
Answers split_answers(const data::Batch& batch, c10::Device device);

struct AnswerLogProbs {
  at::Tensor tokens;        ///< [M, T] float32, log p of each target; 0 where there is none
  at::Tensor entropies;     ///< [M, T] float32, of the distribution it comes from; undefined where it was not asked for
  at::Tensor sums() const;  ///< [M], of each answer
};

/// targets: answers.targets, or others of its shape. Differentiable in the model; the head's logits are never held, and
/// are computed at targets alone.
AnswerLogProbs answer_log_probs(nn::CausalModel& model, const Answers& answers, const at::Tensor& targets,
                                bool entropy = false);

}  // namespace llmtk::rl
