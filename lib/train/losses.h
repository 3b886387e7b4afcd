#pragma once
// The losses of supervised training. Each is scale * the sum over a batch's targets (data::Batch::targets of them), a
// scalar, float32, on the model's device: with scale = 1 / (targets of the whole optimizer step) a step's loss and
// gradient are those of the mean, however its rows are cut into batches (HF's num_items_in_batch).

#include <ATen/core/Tensor.h>

#include "data/batch.h"
#include "nn/causal_model.h"
#include "nn/encoder_model.h"
#include "nn/seq2seq_model.h"

namespace llmtk::train {

/// -log p(label) of each position, as HF's ForCausalLMLoss. The logits are never held all at once.
at::Tensor causal_lm_loss(nn::CausalModel& model, const data::Batch& batch, double scale);

/// -log p(label) of each hidden token, as HF's ForMaskedLMLoss; the head computes those tokens alone.
at::Tensor masked_lm_loss(nn::EncoderModel& model, const data::Batch& batch, double scale);

/// -log p(label) of each token of the decoder, which sees the labels before it, as T5ForConditionalGeneration does with
/// `labels`: shifted to the right behind decoder_start_token_id, those that are not asked as pad_token_id.
at::Tensor seq2seq_loss(nn::Seq2SeqModel& model, const data::Batch& batch, double scale);

/// -log p(class) of each token, as HF's ForTokenClassification.
at::Tensor token_classification_loss(nn::EncoderModel& model, const data::Batch& batch, double scale);

/// What is asked of a whole text: config.json's problem_type.
enum class ProblemType {
  single_label_classification,  ///< -log p(class)
  multi_label_classification,   ///< of each class, the cross-entropy of the sigmoid
  regression,                   ///< of each number, the squared error
};
/// As HF's ForSequenceClassificationLoss. logits: [B, labels] of class_logits().
at::Tensor sequence_classification_loss(const at::Tensor& logits, const data::Batch& batch, double scale,
                                        ProblemType problem);

/// What a classification head says of a batch: [B, labels] of texts, [B, T, labels] of tokens.
at::Tensor class_logits(nn::Model& model, const data::Batch& batch);

/// token_classification_loss() of logits [B, T, labels] that are there already.
at::Tensor token_classification_loss(const at::Tensor& logits, const data::Batch& batch, double scale);

}  // namespace llmtk::train
